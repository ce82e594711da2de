"""One path: the number of devices changes nothing but the speed."""

import json
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from nutime_jax.config import load_config
from nutime_jax.data.datasets import find_datasets
from nutime_jax.distributed.mesh import check_divisible, infer_shardings, make_mesh
from nutime_jax.errors import InputError
from nutime_jax.training.loop import pretrain
from nutime_jax.training.program import build_program
from tests.encoders import smoke_encoder

pytestmark = pytest.mark.optimised


def losses(workdir, devices, *overrides):
    # The published width of the projections: with a few dimensions the normalised differences are ill-conditioned.
    published = ["batch_size=64", "objective.output_dim=256", "model.depth=1"]
    config = load_config("smoke", [*published, "steps=6", "run.log_every=1", "run.probe_every=0", "run.checkpoint_every=3", *overrides])
    state = pretrain(config, workdir, devices=devices)
    assert len(state.step.sharding.device_set) == devices
    return np.array([json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The losses on one device."""
    return losses(tmp_path_factory.mktemp("one"), 1)


def test_1_2_and_8_devices_and_two_slices_give_the_same_losses(one, tmp_path, monkeypatch):
    assert len(jax.devices()) == 8
    two, eight = (losses(tmp_path / str(n), n) for n in (2, 8))
    # As if every other device were in a second slice.
    monkeypatch.setattr("nutime_jax.distributed.mesh._by_slice", lambda devices: [devices[::2], devices[1::2]])
    slices = losses(tmp_path / "slices", 8, "parallel.fsdp=2")
    assert [device.id % 2 for device in make_mesh(fsdp=2).devices[:, 0]] == [0, 0, 1, 1]
    np.testing.assert_allclose(slices, one, rtol=1e-6)
    assert len(one) == 6
    assert np.ptp(one) > 1e-3  # it does train
    np.testing.assert_allclose(two, one, rtol=1e-6)
    np.testing.assert_allclose(eight, one, rtol=1e-6)


def test_divided_parameters_give_the_same_losses_and_are_resumed_whole(one, tmp_path):
    divided = losses(tmp_path / "divided", 8, "parallel.fsdp=4")
    np.testing.assert_allclose(divided, one, rtol=1e-6)
    program = build_program(load_config("smoke", ["parallel.fsdp=4"]), mesh=make_mesh(fsdp=4))
    kernel = program.state.params["encoder"]["block_0"]["mlp"]["in"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (kernel.shape[0] // 4, kernel.shape[1])
    moment = program.state.opt_state[0].mu["encoder"]["block_0"]["mlp"]["in"]["kernel"]
    assert moment.sharding.spec == kernel.sharding.spec
    assert program.state.params["encoder"]["cls"].sharding.is_fully_replicated
    shutil.rmtree(tmp_path / "divided" / "checkpoints" / "00000006")
    np.testing.assert_allclose(losses(tmp_path / "divided", 1), one, rtol=1e-6)


@pytest.mark.parametrize(
    ("rule", "message"),
    [("kernel$", "write pattern=axes"), ("kernel$=rows", "axes data, fsdp or -"), ("(=fsdp", "is not a regular expression")],
)
def test_rules_that_are_none_are_rejected(rule, message):
    with pytest.raises(InputError, match=message):
        infer_shardings({}, make_mesh(), [rule])


def test_leaves_follow_the_first_rule_that_fits():
    mesh = make_mesh(fsdp=4)
    leaves = {"a": {"kernel": np.ones((8, 6))}, "b": {"kernel": np.ones((6, 8))}, "c": np.ones(3)}
    found = infer_shardings(leaves, mesh, ["b/kernel$=-/fsdp", "kernel$=fsdp"])
    assert [leaf.spec for leaf in jax.tree.leaves(found)] == [PartitionSpec("fsdp"), PartitionSpec(None, "fsdp"), PartitionSpec()]


def test_views_made_on_the_devices_do_not_depend_on_their_number(tmp_path):
    one, eight = (losses(tmp_path / str(n), n, "data.synthetic_fraction=0.25", "data.on_device=true") for n in (1, 8))
    np.testing.assert_allclose(eight, one, rtol=1e-6)


def test_a_mesh_of_more_devices_than_there_are_is_rejected():
    with pytest.raises(InputError, match="9 devices are requested; choose 1 to 8"):
        make_mesh(9)
    with pytest.raises(InputError, match="batch size 12 is not divisible by 8 devices; 8 would be"):
        check_divisible(12, make_mesh())
    with pytest.raises(InputError, match="batch size 24 is not divisible by 8 devices times grad_accum_steps 2; 16 would be"):
        check_divisible(24, make_mesh(), parts=2)
    with pytest.raises(InputError, match=r"parallel.fsdp is 3; choose a divisor of the number of devices, which is 8"):
        make_mesh(fsdp=3)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_features_do_not_depend_on_the_batch(batch_size):
    encoder = smoke_encoder()
    series = find_datasets("PickupGestureWiimoteZ")[0].read("train").series[:20]
    whole, parts = encoder.embed(series, batch_size=256), encoder.embed(series, batch_size=batch_size)
    assert whole.shape == (20, 32)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    np.testing.assert_allclose(encoder.embed(series[::-1], batch_size=batch_size), whole[::-1], atol=1e-5)
