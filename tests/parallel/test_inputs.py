"""Every valid input has features that depend on nothing but the input."""

import dataclasses

import jax
import numpy as np
import pytest

from nutime_jax.loading import list_pretrained, load_encoder
from tests.random_inputs import largest_difference, random_cases

pytestmark = pytest.mark.optimised


def test_300_random_cases(monkeypatch):
    cases, encoder = random_cases(300), load_encoder(list_pretrained()[-1])
    found = {}
    for count in (1, 4):
        monkeypatch.setattr(jax, "local_devices", lambda count=count: jax.devices()[:count])
        encoder = dataclasses.replace(encoder)  # with weights on these devices
        difference = largest_difference(encoder, cases)
        assert difference <= 1e-6, f"{count} devices"
        found[count] = encoder.embed(cases, batch_size=64)
    np.testing.assert_allclose(found[4], found[1], rtol=0, atol=1e-6)
