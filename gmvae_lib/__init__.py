"""The library that the course builds, chapter by chapter: Gaussian mixtures, EM, and variational autoencoders.

Each module has one job and imports only from the modules before it:
downloads, data, gaussian, em, mixture, likelihood, prior, network, vae, latent_class, moving_mixture, checkpoint,
training, evaluation, figures, pretrained, explorers, exercises.
"""

__version__ = "0.1.0"
