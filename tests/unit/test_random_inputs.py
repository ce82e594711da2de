from tests.encoders import smoke_encoder
from tests.random_inputs import largest_difference, random_cases


def test_features_depend_on_the_case_alone():
    """In part; tests/parallel has 300 cases, a shipped encoder, and one and four devices."""
    assert largest_difference(smoke_encoder(), random_cases(48)) <= 1e-6
