"""The estimators keep the conventions of scikit-learn and of aeon, as these check them.

First with a stub in place of the encoder; once more with an encoder, and with fine-tuning, in the second stage.
"""

import warnings

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from nutime_jax.estimators import NuTimeAnomalyDetector, NuTimeClassifier, NuTimeClusterer, NuTimeTransformer
from tests.encoders import smoke_encoder
from tests.stub import make_stub

EXPECTED_FAILURES: dict[str, str] = {}
"""Check of scikit-learn or aeon -> why series cannot keep it. It is empty: a table (cases, time) keeps its columns, as
everywhere in scikit-learn; series of other lengths come as a collection, for which scikit-learn has no rules. scikit-learn
itself skips `check_array_api_input` unless SCIPY_ARRAY_API=1 was set before SciPy was imported; it passes then."""


def frozen_estimators(encoder):
    return [kind(encoder) for kind in (NuTimeTransformer, NuTimeClassifier, NuTimeClusterer, NuTimeAnomalyDetector)]


STUB = make_stub()
ENCODER = smoke_encoder()
HEAD = NuTimeClassifier(ENCODER, strategy="head", epochs=20, learning_rates=(3e-2,))
FULL = NuTimeClassifier(ENCODER, strategy="full", epochs=2, learning_rates=(1e-2,))

AEON = ["AeonNuTimeTransformer", "AeonNuTimeClassifier", "AeonNuTimeClusterer", "AeonNuTimeAnomalyDetector"]

FULL_CHECKS = {
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
    "check_readonly_memmap_input",
}
"""What is checked of "full", each fit of which is longer: what depends on what a fit leaves behind. The code before and after
the training is that of "head", of which everything is checked."""


def name_of(check):
    return getattr(check, "func", check).__name__


def full_checks():
    return [pytest.param(check, id=name_of(check)) for _, check in estimator_checks_generator(FULL) if name_of(check) in FULL_CHECKS]


@pytest.fixture
def warned():
    """Checks provoke the warnings of what they check, and look at those that matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("warned")
@parametrize_with_checks(frozen_estimators(STUB), expected_failed_checks=lambda estimator: EXPECTED_FAILURES, xfail_strict=True)
def test_conventions_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.usefixtures("warned")
@parametrize_with_checks([*frozen_estimators(ENCODER), HEAD], expected_failed_checks=lambda estimator: EXPECTED_FAILURES, xfail_strict=True)
def test_conventions_of_scikit_learn_with_an_encoder(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.usefixtures("warned")
@pytest.mark.parametrize("check", full_checks())
def test_conventions_of_scikit_learn_by_full_fine_tuning(check):
    check(FULL)


def check_conventions_of_aeon(name, encoder, monkeypatch):
    """aeon constructs the estimator itself. It is imported here: few tests need its checks, and all processes collect this file."""
    from aeon.testing.estimator_checking import check_estimator

    from nutime_jax.estimators import aeon

    kind = getattr(aeon, name)
    monkeypatch.setattr(kind, "_get_test_params", lambda parameter_set="default": {"encoder": encoder})
    results = check_estimator(kind)
    assert {check: result for check, result in results.items() if result != "PASSED"} == {}
    assert len(results) >= 25


@pytest.mark.usefixtures("warned")
@pytest.mark.parametrize("name", AEON)
def test_conventions_of_aeon(name, monkeypatch):
    check_conventions_of_aeon(name, STUB, monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("warned")
@pytest.mark.parametrize("name", AEON)
def test_conventions_of_aeon_with_an_encoder(name, monkeypatch):
    check_conventions_of_aeon(name, ENCODER, monkeypatch)


def test_no_check_is_left_out():
    assert EXPECTED_FAILURES == {}
    assert {name_of(check) for _, check in estimator_checks_generator(FULL)} >= FULL_CHECKS
    assert [len(list(estimator_checks_generator(one))) >= 40 for one in frozen_estimators(STUB)] == [True] * 4
