"""Objectives on eight devices are those of one device."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import load_config
from nutime_jax.distributed.mesh import batch_sharding, make_mesh
from nutime_jax.objectives.contrastive import info_nce_loss, moco_loss
from nutime_jax.plan.hlo import parse_arrays
from nutime_jax.training.loop import pretrain

pytestmark = pytest.mark.optimised


def losses_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if "loss" in line])


def test_negatives_are_those_of_all_devices(tmp_path):
    overrides = ["objective.kind=simclr", "batch_size=64", "steps=4", "run.log_every=1", "run.probe_every=0", "objective.output_dim=256"]
    config = load_config("smoke", ["model.depth=1", *overrides])
    states = [pretrain(config, tmp_path / str(devices), devices=devices) for devices in (1, 8)]
    one, eight = (losses_of(tmp_path / name) for name in ("1", "8"))
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    assert len(one) == 4
    assert one[-1] < one[0]
    for state in states:
        assert state.target_params == state.target_variables == {}
        assert "predictor" not in state.params


def test_each_device_has_the_rows_of_its_series():
    mesh, batch = make_mesh(8), 256
    x = jax.ShapeDtypeStruct((batch, 2, 32), jnp.float32, sharding=batch_sharding(mesh))
    loss = jax.value_and_grad(lambda z: info_nce_loss(z, z, temperature=0.1))
    arrays = parse_arrays(jax.jit(loss).lower(x).compile().as_text())
    assert max(array.size for array in arrays) == 4 * (2 * batch // 8) * 2 * batch


def test_the_negatives_of_moco_are_those_of_all_devices():
    p, t = (jnp.asarray(x, jnp.float32) for x in np.random.default_rng(2).normal(size=(2, 16, 2, 32)))
    mesh = make_mesh(8)
    loss = jax.jit(jax.value_and_grad(partial(moco_loss, temperature=0.2)))
    divided = loss(*(jax.device_put(x, batch_sharding(mesh)) for x in (p, t)))
    assert len(divided[1].sharding.device_set) == 8
    for ours, theirs in zip(divided, loss(p, t), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    parts = np.mean([loss(p[i : i + 2], t[i : i + 2])[0] for i in range(0, 16, 2)])
    assert divided[0] - parts > 0.5  # log(16 / 2) * 4 * 0.2 is 1.7


def test_a_masked_run_is_the_same_on_eight_devices(tmp_path):
    config = load_config("smoke", ["objective.kind=masked", "model.depth=1", "encoder_microbatch_size=8", "run.probe_every=0"])
    for devices in (1, 8):
        pretrain(config, tmp_path / str(devices), devices=devices)
    np.testing.assert_allclose(losses_of(tmp_path / "8"), losses_of(tmp_path / "1"), rtol=1e-5)
