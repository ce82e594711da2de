"""Shipped weights load, and are as good as their cards say: a ridge probe on sets that come with aeon, default split."""

import numpy as np
import pytest

from nutime_jax.data.datasets import find_datasets
from nutime_jax.evaluation.features import encode_cases
from nutime_jax.evaluation.protocols.probes import probe_metrics
from nutime_jax.loading import WEIGHTS, list_pretrained, load_encoder

ACCURACY = {
    "nutime-base": {"ArrowHead": 0.8457, "GunPoint": 1.0, "ItalyPowerDemand": 0.966},
    "nutime-small": {"ArrowHead": 0.8514, "GunPoint": 1.0, "ItalyPowerDemand": 0.9631},
}
"""Test accuracy, measured when the weights were shipped."""


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("name", list_pretrained())
def test_an_encoder_is_as_good_as_when_it_was_shipped(name):
    encoder = load_encoder(name)
    assert encoder.config.name == name
    scores = {}
    for one in ACCURACY[name]:
        (files,) = find_datasets(one)
        train, test = (encode_cases(encoder, files.read(split)) for split in ("train", "test"))
        scores[one] = probe_metrics("ridge", train, test)["accuracy"]
    # A case of ArrowHead is 0.6 %.
    assert scores == pytest.approx(ACCURACY[name], abs=0.015)
    assert np.mean(list(scores.values())) == pytest.approx(np.mean(list(ACCURACY[name].values())), abs=0.01)


def test_every_card_says_what_was_used_and_what_not():
    assert set(ACCURACY) == set(list_pretrained())
    for name in list_pretrained():
        card = (WEIGHTS / name / "card.md").read_text()
        for words in (f"# {name}", "**Training.**", "**Results.**", "**Licence.**", "no test"):
            assert words.lower() in card.lower(), (name, words)


def test_weights_are_small_enough_to_ship():
    for name in list_pretrained():
        assert (WEIGHTS / name / "weights.safetensors").stat().st_size < 10e6
