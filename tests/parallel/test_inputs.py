"""Every valid input has features that depend on nothing but the input."""

import dataclasses

import jax
import pytest

from nutime_jax.loading import list_pretrained, load_encoder
from tests.random_inputs import largest_difference, random_cases, relative_difference

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
    assert relative_difference(found[4], found[1]) <= 1e-6
