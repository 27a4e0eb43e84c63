"""scikit-learn's own checks of what an estimator must do. One cannot apply, and is listed with the reason."""

import pytest
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from gmvae_lib.data import load
from gmvae_lib.mixture import GaussianMixture

ESTIMATORS = [GaussianMixture(), GaussianMixture(2, "diag", random_state=0), GaussianMixture(2, "tied"),
              GaussianMixture(3, "spherical")]


def cannot_apply(estimator):
    """The checks that cannot hold, with the reason."""
    if estimator.n_components == 1:
        return {}
    return {"check_sample_weight_equivalence_on_dense_data": "a random start is drawn from the rows as they are given: "
            "from a start given by hand weights do equal repetitions (test_mixture_weights.py)"}


@pytest.mark.filterwarnings("ignore")  # of too few steps, and of components that collapse on tiny data
@parametrize_with_checks(ESTIMATORS, expected_failed_checks=cannot_apply)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_grid_search_chooses_the_true_number_of_components_in_a_pipeline():
    data = load("blobs", n_samples=1000)
    model = make_pipeline(PCA(2), GaussianMixture(n_init=5, tol=1e-4))
    search = GridSearchCV(model, {"gaussianmixture__n_components": [1, 2, 3]}, cv=3).fit(data.x.numpy())
    assert search.best_params_ == {"gaussianmixture__n_components": 3}
    assert search.best_estimator_[-1].get_params()["n_init"] == 5
