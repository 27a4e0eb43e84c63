"""`GaussianMixture`: density estimation and clustering with a mixture of Gaussians, with scikit-learn's interface.

The computation is in `families` and `em`; this file checks input, starts EM, repeats it, and answers questions.
"""

import math
import warnings
from numbers import Integral, Real

import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from gmvae_lib import em, families
from gmvae_lib.data import check_array, check_weights, pick_device
from gmvae_lib.points import Points
from gmvae_lib.processes import require_process_group
from gmvae_lib.seeding import partition_statistics, seed_means

COVARIANCE_TYPES = ("full", "diag", "spherical", "tied")
FORGETTING = 0.6  # partial_fit: the n-th batch moves the statistics by n^-0.6 (Cappé & Moulines: between 0.5 and 1)


class GaussianMixture(DensityMixin, BaseEstimator):
    """A mixture of Gaussians, p(x) = sum_k pi_k N(x | mu_k, Sigma_k), with scikit-learn's interface.

    Arguments:
        n_components: the number K of components.
        covariance_type: "full", "diag", "spherical", or "tied" (one full covariance for all).
        tol: EM stops when the mean log-likelihood (nats per point) changes by less; 0 runs all `max_iter` steps.
        max_iter, n_init: EM steps at most; starts, of which the likeliest result is kept.
        reg_covar: added to every variance, in the data's squared units; keeps components from collapsing.
        init: "k-means++", "k-means" (slower, and more often near the best) or "random" (K distinct data points): the
            starting means; the rest follows from the nearest-mean partition.
        seed: an integer; the same seed gives the same fit and the same samples.
        weights_init (K,), means_init (K, D), precisions_init (inverse covariances, shaped as `covariances_`):
            a start given by hand, whole or in part.
        device: "cuda", "cpu", ... ; by default the best at hand, which for small data is the CPU.
        dtype: torch.float64 or torch.float32, the precision of the sweeps; by default float64, except on GPUs where it
            is slow. In float32 the mean log-likelihood is right to about 1e-4.
        warm_start: whether `fit` starts where the last one stopped.
        random_state: scikit-learn's name for `seed`; if given, it takes its place.
        distributed: whether each process of `torch.distributed` gives `fit` its own share of the data; all get the
            result for the whole.
    Attributes (float64 tensors on the CPU): weights_, means_, covariances_, precisions_; log_likelihood_ (its history:
        mean nats per point before each step, and after the last) and lower_bound_, its last entry, a float;
        converged_, n_iter_, n_features_in_.
    Methods take an (N, D) tensor or array, N points of D features, and answer in kind. They raise ValueError for
    data with NaN, infinite values, constant columns, another D, or fewer points than components, and where a component
    collapses in spite of reg_covar; `fit` warns (RuntimeWarning) of those that live by it.
    They take groups, too, (N, V, D): V views of each of N things. The views of one thing share a component and are
    independent given it: p(x_1, ..., x_V) = sum_k pi_k prod_v N(x_v | mu_k, Sigma_k) (chapter 9). "Point" then means
    group throughout: each has one answer, one sample weight, one term in mean log-likelihoods and in criteria; starting
    means are sought among the groups' means. The V of a question may differ from the fit's.
    """

    def __init__(self, n_components=1, covariance_type="full", tol=1e-3, max_iter=100, n_init=1, reg_covar=1e-6,
                 init="k-means++", seed=0, weights_init=None, means_init=None, precisions_init=None, device=None,
                 dtype=None, warm_start=False, random_state=None, distributed=False):
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
        self.dtype = dtype
        self.warm_start = warm_start
        self.random_state = random_state
        self.distributed = distributed

    def fit(self, x, y=None, sample_weight=None):
        """Fits by EM to points (N, D) or groups (N, V, D); `y` is ignored. A point of weight w (N,) counts as w points.

        x may be a memory-mapped array larger than memory. Warns (ConvergenceWarning) where `tol` was not reached in
        `max_iter` steps.
        """
        self._check_settings()
        x = self._check_data(x, reset=True)
        weights = None if sample_weight is None else check_weights(sample_weight, len(x))
        return self._fit(Points(x, weights, self.device, self.dtype, self.distributed))

    def fit_batches(self, batches):
        """Fits by EM to data that come in batches (n, D) or (n, V, D): the result is `fit`'s for all of them together.

        batches: a list, a DataLoader or another iterable that starts anew each time, or a function that returns a fresh
            iterator. Each step of EM goes through it once, and the start needs three more sweeps.
        """
        self._check_settings()
        if not callable(batches) and iter(batches) is batches:
            raise ValueError("batches can be gone through only once, but every step of EM needs all of them: give a "
                             "function that returns a fresh iterator.")

        def read():
            shape = None
            for batch in batches() if callable(batches) else batches:
                batch = check_array(batch, shape and shape[-1], "a batch", views=True)
                shape = shape or tuple(batch.shape[1:])
                if tuple(batch.shape[1:]) != shape:
                    raise ValueError(f"a batch holds points of shape {tuple(batch.shape[1:])}: expected {shape}, as in "
                                     "the first batch.")
                yield batch

        return self._fit(Points(read, None, self.device, self.dtype, self.distributed))

    def partial_fit(self, x, y=None, sample_weight=None):
        """One step of online EM with the points x (n, D) or (n, V, D); the first call fits to them as `fit` does.

        For data that are seen once. The model's own statistics move towards those of the batch, less with each batch,
        and an M-step follows. Source: Cappé & Moulines (2009).
        """
        if not hasattr(self, "means_"):
            return self.fit(x, sample_weight=sample_weight)
        self._check_settings()
        x = self._check_data(x)
        weights = None if sample_weight is None else check_weights(sample_weight, len(x))
        points = Points(x, weights, self.device, self.dtype, self.distributed, *self._frame())
        old, kind = em.to_frame(points, self._parameters()), self.covariance_type
        reg_covar = self.reg_covar / points.scale**2
        batch, log_likelihood = em.expectation(points, old, kind, old.means)
        self.n_batches_ += 1
        step = self.n_batches_ ** -FORGETTING
        memory = families.statistics_of(old, kind, reg_covar)
        share = step / (points.weight * points.views)
        sums = [(1 - step) * a + share * b for a, b in zip(memory[:3], batch[:3], strict=True)]
        updated = families.maximization(families.Statistics(*sums, old.means), kind, reg_covar, old)
        return self._keep(points, updated, [*self.log_likelihood_[:-1].tolist(), log_likelihood,
                                            em.mean_log_prob(points, updated, kind)], False)

    def set_parameters(self, weights, means, covariances):
        """Makes this the mixture with the given weights (K,), means (K, D) and covariances (shaped by their family),
        without any data; ValueError where they do not define a density. Returns self."""
        self._check_settings()
        means = torch.as_tensor(means)
        dim = means.shape[-1] if means.ndim else 0
        given = {"weights": weights, "means": means, "covariances": covariances}
        parameters = families.Parameters(*self._check_parameters(given, dim))
        families.factorize(parameters.covariances, self.covariance_type, "check covariances")
        self.weights_, self.means_, self.covariances_ = parameters
        self.n_features_in_, self.n_batches_ = dim, 1
        return self

    def _fit(self, points):
        if points.n < self.n_components:
            raise ValueError(f"x has {points.n} points, fewer than the {self.n_components} components asked for: lower "
                             "n_components or give more data.")
        if self.warm_start and hasattr(self, "means_"):
            if self.means_.shape != (self.n_components, points.dim):
                raise ValueError(f"warm_start=True, but the fitted means have shape {tuple(self.means_.shape)}, and x "
                                 f"asks for {(self.n_components, points.dim)}: set warm_start=False.")
            starts = [em.to_frame(points, self._parameters())]
        else:
            names = ("weights_init", "means_init", "precisions_init")
            given = self._check_parameters({name: getattr(self, name) for name in names}, points.dim)
            generator = self._generator()
            starts = (self._start(points, given, generator) for _ in range(self.n_init))
        with em.suitable_threads(points, self.n_components, self.covariance_type):
            parameters, history, converged = max((self._run(points, start) for start in starts),
                                                 key=lambda run: run[1][-1])
        self.n_batches_ = 1
        self._keep(points, parameters, history, converged)
        if collapsed := families.collapsed(self.covariances_, self.covariance_type, self.reg_covar):
            if self.reg_covar == 0:
                raise ValueError(f"Component {collapsed} has collapsed: in some direction it has no variance beyond "
                                 "rounding: raise reg_covar.")
            warnings.warn(f"Component {collapsed} has collapsed: in some direction it owes its variance to reg_covar. "
                          "Use fewer components, another seed, or project x with PCA first.", RuntimeWarning,
                          stacklevel=3)
        if self.tol > 0 and not converged:
            warnings.warn(f"EM had not converged after {self.max_iter} steps: raise max_iter or tol.",
                          ConvergenceWarning, stacklevel=3)
        return self

    def _keep(self, points, parameters, history, converged):
        self.weights_, self.means_, self.covariances_ = (v.cpu() for v in em.from_frame(points, parameters))
        self.log_likelihood_ = torch.tensor(history, dtype=torch.float64)
        self.lower_bound_, self.n_iter_, self.converged_ = history[-1], len(history) - 1, converged
        self.n_features_in_ = points.dim
        return self

    def _run(self, points, parameters):
        kind, reg_covar, history, converged = self.covariance_type, self.reg_covar / points.scale**2, [], False
        factors = families.factorize(parameters.covariances, kind)
        while len(history) < self.max_iter and not converged:
            parameters, factors, log_likelihood = em.step(points, parameters, kind, reg_covar, factors)
            history.append(log_likelihood)
            converged = len(history) > 1 and abs(history[-1] - history[-2]) < self.tol
        history.append(em.mean_log_prob(points, parameters, kind, factors))
        return parameters, history, converged

    def _start(self, points, given, generator):
        """Starting `Parameters` in the frame: the M-step of the partition by nearest means; then whatever was given by
        hand takes the place of its estimates."""
        weights, means, precisions = given
        kind = self.covariance_type
        if means is None:
            centers = seed_means(points, self.n_components, self.init, generator)
        else:
            centers = (means.to(points.device) - points.center) / points.scale
        if any(value is None for value in given):
            statistics = partition_statistics(points, centers, kind)
            start = families.maximization(statistics, kind, self.reg_covar / points.scale**2)
        else:
            start = families.Parameters(weights, centers, None)
        if means is not None:
            start = start._replace(means=centers)
        if weights is not None:
            start = start._replace(weights=weights.to(points.device))
        if precisions is not None:
            inverse = families.factorize(precisions.to(points.device), kind, "check precisions_init").precision
            start = start._replace(covariances=inverse / points.scale**2)
        return start

    def predict(self, x):
        """The likeliest component of each point, (N,) integers."""
        return self._evaluate(x, lambda joint: joint.argmax(0))

    def fit_predict(self, x, y=None):
        """`fit(x).predict(x)`."""
        return self.fit(x).predict(x)

    def predict_proba(self, x):
        """Responsibilities p(k | x), (N, K); each row sums to one."""
        return self._evaluate(x, lambda joint: (em.normalize(joint), joint.T.clone())[1])  # normalizes in place

    def score_samples(self, x):
        """log p(x) of each point, (N,), in nats."""
        return self._evaluate(x, em.normalize)

    def score(self, x, y=None):
        """The mean of log p(x), a float, in nats per point."""
        return float(self.score_samples(x).mean())

    def bic(self, x):
        """Bayesian information criterion, -2 log-likelihood + (parameters) log N; lower is better. Eq. (3.18)."""
        n = len(x)
        return -2 * n * self.score(x) + self.n_parameters() * math.log(n)

    def aic(self, x):
        """Akaike's information criterion, -2 log-likelihood + 2 (parameters); lower is better. Eq. (3.14)."""
        return -2 * len(x) * self.score(x) + 2 * self.n_parameters()

    def icl(self, x):
        """Integrated completed likelihood: BIC + twice the responsibilities' entropy; lower is better. Eq. (3.23).

        Biernacki, Celeux & Govaert (2000).
        """
        resp = torch.as_tensor(self.predict_proba(x))
        return self.bic(x) - 2 * float(torch.special.xlogy(resp, resp).sum())

    def n_parameters(self):
        """The number of free parameters. Eq. (1.19)."""
        k, d = self.n_components, self.n_features_in_
        spread = {"full": k * d * (d + 1) // 2, "diag": k * d, "spherical": k, "tied": d * (d + 1) // 2}
        return k - 1 + k * d + spread[self.covariance_type]

    def sample(self, n_samples=1):
        """Draws (x, component), (n_samples, D) and (n_samples,) tensors: the same at each call, from `seed`."""
        weights, means, covariances = self._parameters()
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}: it must be at least 1.")
        generator = self._generator()
        component = torch.multinomial(weights, n_samples, replacement=True, generator=generator)
        noise = torch.randn(n_samples, means.shape[1], generator=generator, dtype=torch.float64)
        factors = families.scale(covariances, self.covariance_type)
        if self.covariance_type == "tied":
            noise = noise @ factors.T
        elif self.covariance_type == "full":
            noise = (factors[component] @ noise.unsqueeze(-1)).squeeze(-1)
        else:
            noise = noise * factors.reshape(self.n_components, -1)[component]
        return means[component] + noise, component

    @property
    def precisions_(self):
        """The inverse covariances, in the covariances' shape."""
        return families.factorize(self._parameters().covariances, self.covariance_type).precision

    def _generator(self):
        seed = self.seed if self.random_state is None else check_random_state(self.random_state).randint(2**31 - 1)
        return torch.Generator().manual_seed(int(seed))

    def _parameters(self):
        check_is_fitted(self, "means_")
        return families.Parameters(self.weights_, self.means_, self.covariances_)

    def _frame(self):
        """A center and a scale, a power of two, for points that the fitted mixture is asked about."""
        center = self.weights_ @ self.means_
        variances = families.variances(self.covariances_, self.covariance_type)
        size = (self.means_ - center).abs().max() + variances.max().sqrt()
        return center, math.ldexp(1.0, math.frexp(float(size))[1])

    def _evaluate(self, x, answer):
        """answer(log-joint (K, n)), chunk by chunk, under the fitted parameters, in kind."""
        parameters = self._parameters()
        x = self._check_data(given := x)
        points = Points(x, None, self.device, self.dtype, False, *self._frame())
        sweep = em.log_joint(points, em.to_frame(points, parameters), self.covariance_type)
        result = torch.cat([answer(joint) for *_, joint in sweep])
        result = result.to(pick_device(x.device, float64=True), torch.float64 if result.is_floating_point() else None)
        return result if isinstance(given, torch.Tensor) else result.numpy(force=True)

    def _check_data(self, x, reset=False):
        """x as a checked tensor, (N, D) or (N, V, D): what is no tensor goes through scikit-learn's checks first."""
        n_axes = getattr(x, "ndim", 2)
        if not isinstance(x, torch.Tensor) and n_axes <= 3:
            views = x.shape[:2] if n_axes == 3 else None
            x = x if views is None else x.reshape(-1, x.shape[2])
            x = validate_data(self, x, reset=reset, dtype=("float64", "float32"), ensure_all_finite=False)
            x = x if views is None else x.reshape(*views, -1)
        return check_array(x, None if reset else self.n_features_in_, views=True)

    def _check_settings(self):
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(f"covariance_type is {self.covariance_type!r}: choose one of {COVARIANCE_TYPES}.")
        if self.init not in ("k-means++", "k-means", "random"):
            raise ValueError(f"init is {self.init!r}: choose 'k-means++', 'k-means' or 'random', or give means_init.")
        if self.dtype not in (None, torch.float64, torch.float32):
            raise ValueError(f"dtype is {self.dtype!r}: choose torch.float64 or torch.float32.")
        if self.distributed:
            require_process_group()
        for name, kind, least in (("n_components", Integral, 1), ("max_iter", Integral, 1), ("n_init", Integral, 1),
                                  ("seed", Integral, 0), ("tol", Real, 0), ("reg_covar", Real, 0)):
            value = getattr(self, name)
            if not (isinstance(value, kind) and value >= least):
                what = "a whole number" if kind is Integral else "a number"
                raise ValueError(f"{name} is {value!r}: it must be {what} and at least {least}.")

    def _check_parameters(self, given, dim):
        """The values of `given` {name: weights, name: means, name: spread}, as tensors or None, with shapes checked."""
        k = self.n_components
        spread = {"full": (k, dim, dim), "diag": (k, dim), "spherical": (k,), "tied": (dim, dim)}[self.covariance_type]
        checked = []
        for (name, value), shape in zip(given.items(), ((k,), (k, dim), spread), strict=True):
            value = None if value is None else torch.as_tensor(value).cpu().double()
            if value is not None and (tuple(value.shape) != shape or not value.isfinite().all()):
                raise ValueError(f"{name} has shape {tuple(value.shape)}: expected finite values of shape {shape}.")
            checked.append(value)
        weights = checked[0]
        if weights is not None and ((weights < 0).any() or abs(weights.sum() - 1) > 1e-6):
            raise ValueError(f"{next(iter(given))} must be non-negative and sum to one.")
        return checked
