"""The library that the course builds, chapter by chapter: Gaussian mixtures, EM, and variational autoencoders.

Each module has one job and imports only from the modules before it:
speed, replay, downloads, data, gaussian, processes, families, points, em, seeding, mixture, likelihood, prior, network,
vae, latent_class, moving_mixture, schedules, checkpoint, training, evaluation, clustering, profiling, figures,
pretrained, explorers, exercises, train.
"""

__version__ = "0.1.0"
