"""Ways to take a gradient, on a function that can be worked out by hand, and on the real step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import PretrainConfig, load_config, options
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.errors import InputError
from nutime_jax.models.microbatches import FULL_BATCH, Microbatches
from nutime_jax.models.network import REMAT
from nutime_jax.training.program import _microbatches, build_program
from nutime_jax.training.step import accumulate_gradients


def spread_loss(weight, views, keys):
    """Depends on the mean of its part of the batch, as BatchNorm does; the auxiliary value is the part itself."""
    (rows,) = views
    return jnp.square(weight * (rows - rows.mean(0, keepdims=True))).mean(), {"mean": rows.mean(), "key": jax.random.uniform(keys[0])}


def test_parts_are_averaged_and_each_sees_only_itself():
    rows = jnp.arange(12.0)[:, None] ** 2
    (loss, aux), gradient = accumulate_gradients(spread_loss, 3)(jnp.float32(2), (rows,), (jax.random.key(0),))
    parts = [rows[i::3] for i in range(3)]
    spreads = [float(jnp.square(part - part.mean()).mean()) for part in parts]
    np.testing.assert_allclose(loss, 4 * np.mean(spreads), rtol=1e-6)
    np.testing.assert_allclose(gradient, 4 * np.mean(spreads), rtol=1e-6)
    np.testing.assert_allclose(aux["mean"], rows.mean(), rtol=1e-6)
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_allclose(aux["key"], np.mean([jax.random.uniform(key) for key in keys]), rtol=1e-6)


def test_one_part_is_the_plain_gradient():
    arguments = (jnp.float32(2), (jnp.arange(12.0)[:, None],), (jax.random.key(0),))
    plain = jax.value_and_grad(spread_loss, has_aux=True)(*arguments)
    jax.tree.map(np.testing.assert_array_equal, accumulate_gradients(spread_loss, 1)(*arguments), plain)


def test_an_unknown_rematerialisation_is_rejected():
    with pytest.raises(InputError, match="remat is 'all'; choose one of none, save_dots, full"):
        load_config("smoke", ["remat=all"])
    assert tuple(REMAT) == options(PretrainConfig)["remat"].choices


def test_chunks_and_rematerialisation_exclude_each_other():
    with pytest.raises(InputError, match="encoder_microbatch_size is 8 and remat is 'full', which both recompute; set one of them"):
        after_one_step("encoder_microbatch_size=8", "remat=full")


def after_one_step(*overrides):
    config = load_config("smoke", ["model.depth=1", "optim.warmup_steps=0", *overrides])
    program = build_program(config, views=[lambda key, batch: batch], mesh=make_mesh(2))
    views = jax.random.normal(jax.random.key(1), (16, 2, 1, config.length)), jnp.zeros((16, 1))
    return program.step(program.init(), views)


@pytest.fixture(scope="module")
def whole():
    return after_one_step("model.dropout=0.0")


@pytest.fixture(scope="module")
def dropped():
    return after_one_step()


@pytest.mark.parametrize("policy", ["full", pytest.param("save_dots", marks=pytest.mark.slow)])
def test_rematerialisation_changes_nothing(dropped, policy):
    state, metrics = after_one_step(f"remat={policy}")
    np.testing.assert_allclose(metrics["grad_norm"], dropped[1]["grad_norm"], rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6)  # noqa: E731
    jax.tree.map(close, state.variables["batch_stats"], dropped[0].variables["batch_stats"])


def test_accumulation_moves_running_statistics_by_the_mean_over_the_parts(whole):
    state, metrics = after_one_step("grad_accum_steps=4", "model.dropout=0.0")
    assert int(state.step) == 1
    assert abs(float(metrics["loss"]) / float(whole[1]["loss"]) - 1) > 1e-4  # batches of 4 are normalised by other statistics
    ours, theirs = (one.variables["batch_stats"]["projector"]["norm"]["mean"] for one in (state, whole[0]))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # the mean of means is the mean


@pytest.mark.parametrize("recompute", [True, False])
def test_a_step_in_microbatches_is_the_step(monkeypatch, whole, recompute):
    """32 views on two devices, in two microbatches; BatchNorm of the heads sees the full batch."""
    monkeypatch.setattr("nutime_jax.training.program.default_microbatches", lambda platform, devices: Microbatches(8 * devices, recompute))
    state, metrics = after_one_step("model.dropout=0.0")
    np.testing.assert_allclose(metrics["loss"], whole[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], whole[1]["grad_norm"], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.variables["batch_stats"], whole[0].variables["batch_stats"]
    )


def test_microbatches_of_a_tpu_are_256_views_per_chip():
    def microbatches(platform, *overrides):
        return _microbatches(load_config("smoke", list(overrides)), platform, 4)

    assert microbatches("tpu") == microbatches("tpu", "remat=full") == Microbatches(1024, recompute=False)
    assert microbatches("cpu") == Microbatches(32)
    assert microbatches("tpu", "encoder_microbatch_size=8") == Microbatches(8)
    assert {microbatches("gpu"), microbatches("cpu", "remat=full"), microbatches("tpu", "attention=fused")} == {FULL_BATCH}
