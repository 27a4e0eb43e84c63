"""Models that name a class first, then a code, q(c | x) q(z | x, c): M2 and Shu's. Chapter 10.

A choice among K classes has no reparameterized draw. It is summed over, relaxed (Gumbel-softmax), or drawn with the
score function.
"""

import torch
from torch import nn

from gmvae_lib.data import check_array
from gmvae_lib.gaussian import sample_diag
from gmvae_lib.network import MLP, Decoder, Encoder
from gmvae_lib.prior import MixturePrior, with_free_bits
from gmvae_lib.vae import VAE, Elbo

CHOICES = ("exact", "gumbel", "score")


class Classifier(nn.Module):
    """q(c | x): data_dim D inputs, the log-probabilities of n_classes K as outputs.

    In a plain `VAE` it makes the q(c | x) of VaDE's bound a network: `prior.rate(mean, log_var, "joint",
    resp=classifier(x).exp())`.
    """

    def __init__(self, data_dim, n_classes, hidden=(256, 256), gated=False):
        super().__init__()
        self.data_dim, self.n_classes = data_dim, n_classes
        self.mlp = MLP((data_dim, *hidden, n_classes), gated)

    def forward(self, x, beta=None):
        """x (N, D), as an encoder sees it, to log q(c | x), (N, K)."""
        return self.mlp(x, beta).log_softmax(-1)


class LatentClassVAE(VAE):
    """p(c) p(z | c) p(x | z, c), with q(c | x) q(z | x, c) to infer both: M2 and Shu's model. Eqs. (10.13), (10.15).

    Arguments:
        classifier: a `Classifier`, x / likelihood.scale (N, D) to log q(c | x), (N, K).
        encoder: an `Encoder` of D + K inputs, the image and a one-hot class, to (mean, log_var) of q(z | x, c).
        decoder: a `Decoder` of d inputs, the code (Shu's), or of d + K, the code and the class (M2).
        prior: p(c) and p(z | c), a `MixturePrior` of K components (the default). M2's has them all at N(0, I), frozen:
            `MixturePrior(K, d, spread=0.0).requires_grad_(False)`.
        temperature: of the relaxed classes of method="gumbel". It may be changed while training.
        n_draws: how many classes "gumbel" and "score" draw for each image. One alone leaves "score" no baseline.
    Raises ValueError for networks and a prior that do not fit together. It has no M-step, and no groups of views.
    Sources: Kingma et al. (2014), M2; Shu (2016).
    """

    def __init__(self, classifier, encoder, decoder, likelihood=None, prior=None, temperature=0.5, n_draws=2):
        K, d = classifier.n_classes, encoder.latent_dim
        super().__init__(encoder, decoder, likelihood, MixturePrior(K, d) if prior is None else prior)
        if encoder.data_dim != classifier.data_dim + K:
            raise ValueError(f"The encoder has {encoder.data_dim} inputs: expected {classifier.data_dim} + {K}, an "
                             "image and a one-hot class.")
        if decoder.latent_dim not in (d, d + K):
            raise ValueError(f"The decoder has {decoder.latent_dim} inputs: expected {d}, a code, or {d} + {K}, a code "
                             "and a one-hot class.")
        if (self.prior.n_components, getattr(self.prior, "latent_dim", d)) != (K, d):
            raise ValueError(f"The prior has {self.prior.n_components} components: expected {K} in {d} dimensions, "
                             f"MixturePrior({K}, {d}); for M2 with spread=0.0, frozen by requires_grad_(False).")
        if not (temperature > 0 and n_draws >= 1):
            raise ValueError(f"temperature is {temperature} and n_draws {n_draws}: expected above 0, and at least 1.")
        self.classifier, self.temperature, self.n_draws = classifier, temperature, n_draws
        self.told = decoder.latent_dim > d

    @classmethod
    def build(cls, data_dim, latent_dim, n_classes, hidden=(256, 256), likelihood=None, told=False, gated=False,
              **more):
        """Multilayer perceptrons with these `hidden` sizes: Shu's model, or M2 if the decoder is `told` the class."""
        if told:
            more = {"prior": MixturePrior(n_classes, latent_dim, spread=0.0).requires_grad_(False), **more}
        return cls(Classifier(data_dim, n_classes, hidden, gated),
                   Encoder(data_dim + n_classes, latent_dim, hidden, gated),
                   Decoder(latent_dim + n_classes * told, data_dim, hidden[::-1], gated), likelihood, **more)

    def check(self, x):
        """As a `VAE`'s, for x (N, D) alone."""
        x = check_array(x, n_features=self.classifier.data_dim)
        self.likelihood.check(x)
        return x.to(self.device, torch.get_default_dtype())

    def encode(self, x, beta=None):
        """Raises ValueError: q(z | x) is a mixture here, and no Gaussian."""
        raise ValueError("A LatentClassVAE has one Gaussian q(z | x, c) for each class, and none for x alone: use "
                         "class_elbos, responsibilities or reconstruct, and another prior_update than 'em'.")

    def class_elbos(self, x, beta=1.0, generator=None, validate=True):
        """The K ELBOs given each class: an `Elbo` of (N, K). For beta = 1 its `value` is A_c, Eqs. (10.13), (10.14)."""
        x = self.check(x) if validate else x
        K = self.classifier.n_classes
        return Elbo(*self._given(x, torch.eye(K, device=x.device, dtype=x.dtype).expand(len(x), K, K), beta, generator),
                    beta)

    def elbo(self, x, beta=1.0, method="exact", generator=None, validate=True, free_bits=0.0):
        """The ELBO of each point of x (N, D), with one reparameterized draw of z for each class tried.

        Arguments:
            method: how c is averaged over: "exact", by the sum over all K; "gumbel", by relaxed draws, whose gradient
                is biased and whose value is no bound, Eqs. (10.25), (10.27); "score", by draws with the score
                function, each with the mean of the others for a baseline, Eq. (10.21). KL(q(c | x) ‖ pi) is a sum
                always.
            The others as for a `VAE`.
        Returns an `Elbo`. Raises ValueError as `check` does, and for another method.
        Sources: Jang et al. (2017) and Maddison et al. (2017); Williams (1992) and Kool et al. (2019).
        """
        if method not in CHOICES:
            raise ValueError(f"method is {method!r}: choose one of {CHOICES}.")
        x = self.check(x) if validate else x
        log_q = self._log_q(x, beta)
        q = log_q.exp()
        c = self._choose(log_q, method, generator)
        parts = self._given(x, c, beta, generator)
        if method == "exact":
            parts = [(q * part).sum(1) for part in parts]
        else:
            if method == "score":
                log_q_c = (c * log_q.unsqueeze(1)).sum(2)
                parts = [part + _without_the_others(part.detach()) * (log_q_c - log_q_c.detach()) for part in parts]
            parts = [part.mean(1) for part in parts]
        distortion, rate = parts
        rate = rate + (q * (log_q - self.prior.logits.log_softmax(0))).sum(1)  # KL(q(c | x) ‖ pi)
        rate = with_free_bits(rate.unsqueeze(1), free_bits) if free_bits else rate
        return Elbo(distortion, rate, beta.squeeze(1) if isinstance(beta, torch.Tensor) and beta.ndim == 2 else beta)

    @torch.no_grad()
    def responsibilities(self, x, beta=None):
        """q(c | x) of the classifier, (N, K)."""
        return self._log_q(self.check(x), beta).exp()

    @torch.no_grad()
    def sample(self, n, component=None, beta=None, noise=False, generator=None):
        """n images (n, D), as a `VAE`'s: first a class (or `component`), then a code, then their image."""
        K = self.classifier.n_classes
        if component is None:
            index = torch.multinomial(self.prior.weights, n, replacement=True, generator=generator)
            drawn = [self.prior.sample(int(m), k, generator) for k, m in enumerate(index.bincount(minlength=K))]
            z = torch.cat(drawn)[index.argsort().argsort()]  # drawn class by class, put in the classes' order
        else:
            z = self.prior.sample(n, component, generator)
            index = torch.full((n,), component, device=z.device)
        params = self.decoder(self._beside(z, nn.functional.one_hot(index, K).to(z.dtype)), beta)
        return self.likelihood.sample(params, generator) if noise else self.likelihood.mean(params)

    @torch.no_grad()
    def reconstruct(self, x, beta=None):
        """The decoded mean of q(z | x, c) at the likeliest class, (N, D), in pixel units."""
        x = self.check(x)
        c = nn.functional.one_hot(self._log_q(x, beta).argmax(1), self.classifier.n_classes).to(x.dtype)
        mean = self.encoder(torch.cat([x / self.likelihood.scale, c], 1), beta)[0]
        return self.likelihood.mean(self.decoder(self._beside(mean, c), beta))

    def _log_q(self, x, beta):
        return self.classifier(x / self.likelihood.scale, beta if self.gated else None).to(x.dtype)

    def _beside(self, z, c):
        return torch.cat([z, c], -1) if self.told else z

    def _choose(self, log_q, method, generator):
        """Classes (N, S, K): all of them, S = K, or S = n_draws one-hot or relaxed draws."""
        N, K = log_q.shape
        if method == "exact":
            return torch.eye(K, dtype=log_q.dtype, device=log_q.device).expand(N, K, K)
        if method == "score":
            drawn = torch.multinomial(log_q.exp(), self.n_draws, replacement=True, generator=generator)
            return nn.functional.one_hot(drawn, K).to(log_q.dtype)
        waiting = log_q.new_empty(N, self.n_draws, K).exponential_(generator=generator)
        return ((log_q.unsqueeze(1) - waiting.log()) / self.temperature).softmax(2)  # -log of an exponential: a Gumbel

    def _given(self, x, c, beta, generator):
        """Distortion and rate of each point given its classes c (N, S, K): (N, S) each."""
        each = isinstance(beta, torch.Tensor) and beta.ndim == 2
        gate = (beta.unsqueeze(1) if each else beta) if self.gated else None
        x = x.unsqueeze(1)
        images = (x / self.likelihood.scale).expand(-1, c.shape[1], -1)
        mean, log_var = (value.to(x.dtype) for value in self.encoder(torch.cat([images, c], 2), gate))
        params = self.decoder(self._beside(sample_diag(mean, log_var, generator), c), gate).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return (-self.likelihood.log_prob(x, params),
                    (c * self.prior.component_kl(mean, log_var)).sum(2))  # of a relaxed c: the components' average


def _without_the_others(costs):
    """Costs (N, S), each less the mean of the other draws'. One draw has no others."""
    n = costs.shape[1]
    return costs if n == 1 else (costs - costs.mean(1, keepdim=True)) * (n / (n - 1))
