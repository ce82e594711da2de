"""A run of two processes whose workdir is in a bucket; one is killed while it writes, and the run is resumed."""

import json
import signal

import jax
import numpy as np
import pytest

from launch.simulate_pod import Pod
from nutime_jax import load_encoder
from nutime_jax.storage import list_names, resolve_path
from nutime_jax.training.checkpoints import latest_checkpoint, list_checkpoints, read_arrays

FIELDS = ("params", "variables", "target_params", "target_variables", "opt_state", "step")


STEPS, EVERY = 24, 3
LAYOUT = {"processes": 2, "devices": 1, "environment": {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}}


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The workdir of the same run, undisturbed and on this machine."""
    folder = tmp_path_factory.mktemp("disk")
    with Pod(["nutime", *arguments(folder / "run", folder / "data")], logs=folder / "logs", **LAYOUT) as pod:
        assert pod.start().wait(timeout=400) == [0, 0], pod.tail(0)
    return folder / "run"


def arguments(workdir, data):
    run = [f"steps={STEPS}", f"run.checkpoint_every={EVERY}", "run.log_every=1", "run.probe_every=0", "model.depth=1"]
    fields = [*run, f"data.dir={data}", "data.sources=ArrowHead", "evaluation.sources="]
    return ["pretrain", "--config=smoke", f"--workdir={workdir}", *(f"--config.{field}" for field in fields)]


def is_writing(workdir):
    """Return whether a checkpoint is being written after a complete one: its folder has no mark of Orbax yet."""
    folder = workdir / "checkpoints"
    complete = [path.name for path in list_checkpoints(folder)]
    return bool(complete) and any(name.isdecimal() and name not in complete for name in list_names(folder))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_run_goes_on_as_one_on_this_machine(bucket, on_disk, tmp_path, killed):
    workdir = resolve_path(f"{bucket}/run-{killed}")
    with Pod(["nutime", *arguments(workdir, on_disk.parent / "data")], logs=tmp_path / "logs", **LAYOUT) as pod:
        assert pod.start().wait_until(lambda: is_writing(workdir), timeout=400), pod.tail(0)
        pod.kill(killed)
        assert pod.wait(timeout=400)[killed] == -signal.SIGKILL, pod.tail(0)
        assert EVERY <= int(latest_checkpoint(workdir / "checkpoints").name) < STEPS
        assert pod.start().wait(timeout=400) == [0, 0], pod.tail(0)
        assert "resuming from gs://" in pod.output(0)
    here, there = (latest_checkpoint(folder / "checkpoints") for folder in (on_disk, workdir))
    assert here.name == there.name == f"{STEPS:08d}"
    jax.tree.map(np.testing.assert_array_equal, read_arrays(there, FIELDS), read_arrays(here, FIELDS))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    series = [np.sin(np.arange(90) / 9)]
    np.testing.assert_array_equal(load_encoder(str(workdir)).embed(series), load_encoder(on_disk).embed(series))
