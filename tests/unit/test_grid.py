"""Every switch of a run with every other: built by the real step, trained, saved and loaded.

A run has many switches, and each has tests of its own; what two of them do together, no one has thought of. Every value of
every switch is tried always, in a few runs; `pytest -m thorough` tries every pair of values of two switches.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import load_config, update
from nutime_jax.core.views import Views
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS
from nutime_jax.objectives import OBJECTIVES
from nutime_jax.training.program import build_program
from nutime_jax.training.state import encoder_variables

TINY = {"window_size": 8, "width": 8, "depth": 1, "num_heads": 2, "head_dim": 4, "mlp_dim": 16, "dropout": 0.1}
TINY |= {"max_tokens": 32, "scales": (1e-2, 1.0, 1e2), "scale_dim": 4}
SERIES = np.random.default_rng(0).normal(size=(4, 50)).cumsum(1) * 10.0 ** np.arange(-1, 3)[:, None]

SWITCHES = {
    "objective.kind": tuple(OBJECTIVES),
    "objective.pooling": ("cls", "mean", "cls+mean"),
    "model.scalar_encoder": tuple(SCALAR_ENCODERS),
    "model.scale_weighting": (True, False),
    "model.learnable_scales": (False, True),
    "model.scale_eps": ("absolute", "relative"),
    "model.locations": ((), (-1.0, 0.0, 1.0)),
    "model.learnable_frequencies": (False, True),
    "model.normalisation": ("window", "instance"),
    "model.window_stats": ("window", "instance", "none"),
    "model.channel_fusion": ("linear", "sum"),
    "model.pos_embedding": ("sinusoidal", "learned", "rotary", "none"),
    "model.stride": (0, 4),
    "model.dense_stride": (0, 4),
    "model.extra_window_sizes": ((), (4, 16)),
    "model.backbone": ("transformer", "resnet"),
    "model.mask_ratio": (0.0, 0.5),
    "model.mask_type": ("random", "block"),
    "model.mask_strategy": ("learned", "drop"),
    "remat": ("none", "save_dots", "full"),
}
"""Switch -> its values, the default first."""

REFUSED = [
    # Further sizes have no place among neighbours in time, which is what a convolution sees.
    (
        {"model.extra_window_sizes": (4, 16), "model.backbone": "resnet"},
        "a resnet needs tokens of one order; leave model.extra_window_sizes empty",
    ),
    # Dense windows are normalised alone, and belong to tokens of one size.
    ({"model.dense_stride": 4, "model.normalisation": "instance"}, "dense windows need 'window'"),
    ({"model.dense_stride": 4, "model.channel_fusion": "sum"}, "dense windows need 'linear'"),
    ({"model.dense_stride": 4, "model.extra_window_sizes": (4, 16)}, "dense windows need"),
    # There are no queries to turn.
    ({"model.pos_embedding": "rotary", "model.backbone": "resnet"}, "choose transformer and an even head_dim"),
    # Windows that are left out leave neighbours behind that were none, and places that are those of others.
    ({"model.mask_ratio": 0.5, "model.mask_strategy": "drop", "model.backbone": "resnet"}, "choose 'learned', or model.pos_embedding"),
    ({"model.mask_ratio": 0.5, "model.mask_strategy": "drop", "model.pos_embedding": "rotary"}, "choose 'learned', or model.pos_embedding"),
    # What is hidden must not be seen elsewhere, nor be hidden twice.
    ({"objective.kind": "masked", "model.mask_ratio": 0.5}, "masks windows itself"),
    ({"objective.kind": "masked", "model.stride": 4}, "overlapping windows would reveal"),
    ({"objective.kind": "masked", "model.dense_stride": 4}, "overlapping windows would reveal"),
    ({"objective.kind": "masked", "model.extra_window_sizes": (4, 16)}, "overlapping windows would reveal"),
]
"""What is refused together, and the sentence that says why."""

DEFAULT = {name: values[0] for name, values in SWITCHES.items()}


def refused(settings):
    return any(all(settings.get(name) == value for name, value in together.items()) for together, _ in REFUSED)


def covering(size):
    """Settings in which every value of every `size` switches occurs together, but for what is refused: greedily few.

    Each begins with the first of what is left, and takes, switch by switch, the value that completes the most of it.
    """
    left = {
        frozenset(zip(names, values, strict=True)): None
        for names in itertools.combinations(SWITCHES, size)
        for values in itertools.product(*(SWITCHES[name] for name in names))
        if not refused(dict(zip(names, values, strict=True)))
    }
    found = []
    while left:
        settings = dict(next(iter(left)))
        for name in [name for name in SWITCHES if name not in settings]:
            allowed = [value for value in SWITCHES[name] if not refused({**settings, name: value})]
            kept = settings.items()
            gain = [sum(frozenset({(name, value), *some}) in left for some in itertools.combinations(kept, size - 1)) for value in allowed]
            settings[name] = allowed[int(np.argmax(gain))]
        for some in itertools.combinations(settings.items(), size):
            left.pop(frozenset(some), None)
        found.append({name: settings[name] for name in SWITCHES})
    return found


def named(settings):
    return ",".join(f"{name.split('.')[-1]}={value}" for name, value in settings.items() if value != DEFAULT[name]) or "default"


def configure(settings):
    config = load_config(
        "smoke", ["steps=3", "batch_size=4", "length=32", "optim.warmup_steps=0", "objective.hidden_dim=8", "objective.output_dim=4"]
    )
    changes = {"model": dict(TINY)}
    for name, value in settings.items():
        section, _, field = name.rpartition(".")
        (changes.setdefault(section, {}) if section else changes)[field] = value
    return update(config, changes)


def make_views(key, batch):
    return Views(batch[:, None] + 0.1 * jax.random.normal(key, (len(batch), 2, *batch.shape[1:])), None)


def check(settings, tmp_path):
    config = configure(settings)
    program = build_program(config, views=[make_views], mesh=make_mesh(1))
    state = program.init()
    before = jax.tree.map(np.array, state.params)
    batch = jnp.asarray(SERIES[:, None, :32], jnp.float32)
    for _ in range(3):
        state, metrics = program.step(state, batch)
        assert all(np.isfinite(value) for value in metrics.values()), metrics
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(state.params), strict=True):
        assert np.isfinite(new).all(), path
        assert (np.asarray(new) != old).any(), path

    encoder = Encoder(config, jax.tree.map(np.asarray, encoder_variables(state)))
    features = encoder.embed(SERIES, batch_size=8)
    assert features.shape == (4, 16)
    assert np.isfinite(features).all()
    loaded = load_encoder(encoder.save(tmp_path / "encoder"))
    assert loaded.network == encoder.network
    np.testing.assert_array_equal(loaded.embed(SERIES, batch_size=8), features)


@pytest.mark.slow
@pytest.mark.parametrize("settings", covering(1), ids=named)
def test_every_value(settings, tmp_path):
    check(settings, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("settings", covering(2), ids=named)
def test_every_pair_of_values(settings, tmp_path):
    check(settings, tmp_path)


@pytest.mark.parametrize(("together", "sentence"), REFUSED, ids=lambda one: named(one) if isinstance(one, dict) else "")
def test_what_cannot_be_together_is_rejected(together, sentence):
    with pytest.raises(InputError, match=sentence):
        build_program(configure({**DEFAULT, **together}), views=[make_views], mesh=make_mesh(1))


@pytest.mark.parametrize("size", [1, 2])
def test_everything_is_covered(size):
    found = covering(size)
    assert not any(refused(settings) for settings in found)
    covered = {frozenset(some) for settings in found for some in itertools.combinations(settings.items(), size)}
    for names in itertools.combinations(SWITCHES, size):
        for values in itertools.product(*(SWITCHES[name] for name in names)):
            together = dict(zip(names, values, strict=True))
            assert refused(together) or frozenset(together.items()) in covered
    fewest = sorted(len(values) for values in SWITCHES.values())[-size:]
    assert len(found) < 2 * np.prod(fewest)
