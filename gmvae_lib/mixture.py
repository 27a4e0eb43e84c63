"""`GaussianMixture`: density estimation and clustering with a mixture of Gaussians, with scikit-learn's interface.

The computation is in `em`; this file checks input, starts EM, repeats it, and answers questions about the result.
"""

import math
import warnings
from numbers import Integral, Real

import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from gmvae_lib import em
from gmvae_lib.data import check_array, pick_device

COVARIANCE_TYPES = ("full", "diag", "spherical", "tied")


class GaussianMixture(BaseEstimator):
    """A mixture of Gaussians, p(x) = sum_k pi_k N(x | mu_k, Sigma_k), with scikit-learn's interface.

    Arguments:
        n_components: the number K of components.
        covariance_type: "full", "diag", "spherical", or "tied" (one full covariance for all).
        tol: EM stops when the mean log-likelihood (nats per point) changes by less; 0 runs all `max_iter` steps.
        max_iter, n_init: EM steps at most; starts, of which the likeliest result is kept.
        reg_covar: added to every variance, in the data's squared units; keeps components from collapsing.
        init: "k-means++" or "random" (K distinct data points); the rest follows from the nearest-mean partition.
        seed: an integer; the same seed gives the same fit and the same samples.
        weights_init (K,), means_init (K, D), precisions_init (inverse covariances, shaped as `covariances_`):
            a start given by hand, whole or in part.
        device: "cuda", "cpu", ... ; the best at hand by default. Computation is in float64.
    Attributes (float64 tensors on the CPU): weights_, means_, covariances_; log_likelihood_ (its history: mean nats
        per point before each step, and after the last) and lower_bound_, its last entry, a float; converged_, n_iter_.
    Methods take an (N, D) tensor or array, N points of D features, and answer in kind. They raise ValueError for
    data with NaN, infinite values, constant columns, another D, or fewer points than components.
    """

    def __init__(self, n_components=1, covariance_type="full", tol=1e-3, max_iter=100, n_init=1, reg_covar=1e-6,
                 init="k-means++", seed=0, weights_init=None, means_init=None, precisions_init=None, device=None):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.reg_covar = reg_covar
        self.init = init
        self.seed = seed
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.device = device

    def fit(self, x, y=None):
        """Fits by EM; `y` is ignored. Warns (ConvergenceWarning) where `tol` was not reached in `max_iter` steps."""
        self._check_settings()
        points = em.Points(check_array(x, min_rows=self.n_components, constant_columns=False), self.device)
        start = self._given_start(points.x.shape[1])
        generator = torch.Generator().manual_seed(self.seed)
        runs = (self._run(points, self._start(points, start, generator)) for _ in range(self.n_init))
        with em.suitable_threads(points.x, self.n_components, self.covariance_type):
            parameters, history, self.converged_ = max(runs, key=lambda run: run[1][-1])
        self.weights_, self.means_, self.covariances_ = (value.cpu() for value in points.shift(parameters, +1))
        self.log_likelihood_ = torch.tensor(history, dtype=torch.float64)
        self.lower_bound_, self.n_iter_, self.n_features_in_ = history[-1], len(history) - 1, points.x.shape[1]
        if self.tol > 0 and not self.converged_:
            warnings.warn(f"EM had not converged after {self.max_iter} steps: raise max_iter or tol.",
                          ConvergenceWarning, stacklevel=2)
        return self

    def _run(self, points, parameters):
        kind, history, converged = self.covariance_type, [], False
        factors = em.factorize(parameters.covariances, kind)
        while len(history) < self.max_iter and not converged:
            parameters, factors, log_likelihood = em.step(points, parameters, kind, self.reg_covar, factors)
            history.append(log_likelihood)
            converged = len(history) > 1 and abs(history[-1] - history[-2]) < self.tol
        history.append(em.mean_log_prob(points, parameters, kind, factors))
        return parameters, history, converged

    def _start(self, points, given, generator):
        """Centered starting `Parameters`: the M-step of the partition by nearest means; then whatever was given by
        hand takes the place of its estimates."""
        weights, means, precisions = given
        if means is None:
            centers = em.seed_means(points, self.n_components, self.init, generator)
        else:
            centers = means.to(points.device) - points.center
        if any(value is None for value in given):
            statistics = em.partition_statistics(points, centers, self.covariance_type)
            start = em.maximization(statistics, self.covariance_type, self.reg_covar)
        else:
            start = em.Parameters(weights, centers, None)
        if means is not None:
            start = start._replace(means=centers)
        if weights is not None:
            start = start._replace(weights=weights.to(points.device))
        if precisions is not None:
            precisions = precisions.to(points.device)
            inverse = em.factorize(precisions, self.covariance_type, "check precisions_init").precision
            start = start._replace(covariances=inverse)
        return start

    def predict(self, x):
        """The likeliest component of each point, (N,) integers."""
        return self._evaluate(x, lambda joint: joint.argmax(0))

    def fit_predict(self, x, y=None):
        """`fit(x).predict(x)`."""
        return self.fit(x).predict(x)

    def predict_proba(self, x):
        """Responsibilities p(k | x), (N, K); each row sums to one."""
        return self._evaluate(x, lambda joint: (em.normalize(joint), joint.T)[1])  # it normalizes in place

    def score_samples(self, x):
        """log p(x) of each point, (N,), in nats."""
        return self._evaluate(x, em.normalize)

    def score(self, x, y=None):
        """The mean of log p(x), a float, in nats per point."""
        return float(self.score_samples(x).mean())

    def bic(self, x):
        """Bayesian information criterion, -2 log-likelihood + (parameters) log N; lower is better."""
        n = len(x)
        return -2 * n * self.score(x) + self.n_parameters() * math.log(n)

    def aic(self, x):
        """Akaike's information criterion, -2 log-likelihood + 2 (parameters); lower is better."""
        return -2 * len(x) * self.score(x) + 2 * self.n_parameters()

    def icl(self, x):
        """Integrated completed likelihood: BIC + twice the entropy of the responsibilities; lower is better.

        Biernacki, Celeux & Govaert (2000).
        """
        resp = torch.as_tensor(self.predict_proba(x))
        return self.bic(x) - 2 * float(torch.special.xlogy(resp, resp).sum())

    def n_parameters(self):
        """The number of free parameters."""
        k, d = self.n_components, self.n_features_in_
        spread = {"full": k * d * (d + 1) // 2, "diag": k * d, "spherical": k, "tied": d * (d + 1) // 2}
        return k - 1 + k * d + spread[self.covariance_type]

    def sample(self, n_samples=1):
        """Draws (x, component), (n_samples, D) and (n_samples,) tensors: the same at each call, from `seed`."""
        weights, means, covariances = self._parameters()
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}: it must be at least 1.")
        generator = torch.Generator().manual_seed(self.seed)
        component = torch.multinomial(weights, n_samples, replacement=True, generator=generator)
        noise = torch.randn(n_samples, means.shape[1], generator=generator, dtype=torch.float64)
        factors = em.scale(covariances, self.covariance_type)
        if self.covariance_type == "tied":
            noise = noise @ factors.T
        elif self.covariance_type == "full":
            noise = (factors[component] @ noise.unsqueeze(-1)).squeeze(-1)
        else:
            noise = noise * factors.reshape(self.n_components, -1)[component]
        return means[component] + noise, component

    def _parameters(self):
        if not hasattr(self, "means_"):
            raise NotFittedError("This GaussianMixture is not fitted yet: call fit(x) first.")
        return em.Parameters(self.weights_, self.means_, self.covariances_)

    def _evaluate(self, x, answer):
        """answer(log-joint (K, n)), chunk by chunk, under the fitted parameters, in kind."""
        parameters = self._parameters()
        x = check_array(given := x, n_features=parameters.means.shape[1])
        points = em.Points(x, self.device, center=parameters.weights @ parameters.means)
        sweep = em.log_joint(points, points.shift(parameters, -1), self.covariance_type)
        result = torch.cat([answer(joint) for _, _, joint in sweep])
        result = result.to(pick_device(x.device, float64=True))
        return result if isinstance(given, torch.Tensor) else result.numpy(force=True)

    def _check_settings(self):
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(f"covariance_type is {self.covariance_type!r}: choose one of {COVARIANCE_TYPES}.")
        if self.init not in ("k-means++", "random"):
            raise ValueError(f"init is {self.init!r}: choose 'k-means++' or 'random', or give means_init.")
        for name, kind, least in (("n_components", Integral, 1), ("max_iter", Integral, 1), ("n_init", Integral, 1),
                                  ("seed", Integral, 0), ("tol", Real, 0), ("reg_covar", Real, 0)):
            value = getattr(self, name)
            if not (isinstance(value, kind) and value >= least):
                what = "a whole number" if kind is Integral else "a number"
                raise ValueError(f"{name} is {value!r}: it must be {what} and at least {least}.")

    def _given_start(self, dim):
        """The start given by hand, as tensors or None, with its shapes checked."""
        k = self.n_components
        shapes = {"weights_init": (k,), "means_init": (k, dim),
                  "precisions_init": {"full": (k, dim, dim), "diag": (k, dim), "spherical": (k,),
                                      "tied": (dim, dim)}[self.covariance_type]}
        given = []
        for name, shape in shapes.items():
            value = getattr(self, name)
            value = None if value is None else torch.as_tensor(value).to("cpu", torch.float64)
            if value is not None and (tuple(value.shape) != shape or not value.isfinite().all()):
                raise ValueError(f"{name} has shape {tuple(value.shape)}: expected finite values of shape {shape}.")
            given.append(value)
        if given[0] is not None and ((given[0] < 0).any() or abs(given[0].sum() - 1) > 1e-6):
            raise ValueError("weights_init must be non-negative and sum to one.")
        return given
