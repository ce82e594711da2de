"""A run whose workdir is in a bucket: killed while it writes a checkpoint, and resumed."""

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


def arguments(workdir, data):
    run = [f"steps={STEPS}", f"run.checkpoint_every={EVERY}", "run.log_every=1", "run.probe_every=0", "model.depth=1"]
    fields = [*run, f"data.dir={data}", "data.sources=ArrowHead", "evaluation.sources="]
    return ["pretrain", "--config=smoke", f"--workdir={workdir}", *(f"--config.{field}" for field in fields)]


def is_writing(workdir):
    """Return whether a checkpoint is being written after a complete one: its folder has no mark of Orbax yet."""
    folder = workdir / "checkpoints"
    complete = [path.name for path in list_checkpoints(folder)]
    return bool(complete) and any(name.isdecimal() and name not in complete for name in list_names(folder))


@pytest.mark.parametrize(
    ("processes", "killed"),
    [
        pytest.param(1, 0, marks=pytest.mark.slow),
        pytest.param(2, 0, marks=pytest.mark.thorough),
        pytest.param(2, 1, marks=pytest.mark.thorough),
    ],
)
def test_a_killed_run_goes_on_as_one_on_this_machine(bucket, tmp_path, processes, killed):
    workdir, data = resolve_path(f"{bucket}/run-{processes}-{killed}"), tmp_path / "data"
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    layout = {"processes": processes, "devices": 1, "logs": tmp_path / "logs", "environment": cache}
    with Pod(["nutime", *arguments(tmp_path / "run", data)], **layout) as pod:
        assert pod.start().wait(timeout=400) == [0] * processes, pod.tail(0)
    with Pod(["nutime", *arguments(workdir, data)], **layout) as pod:
        assert pod.start().wait_until(lambda: is_writing(workdir), timeout=400), pod.tail(0)
        pod.kill(killed)
        assert pod.wait(timeout=400)[killed] == -signal.SIGKILL, pod.tail(0)
        assert EVERY <= int(latest_checkpoint(workdir / "checkpoints").name) < STEPS
        assert pod.start().wait(timeout=400) == [0] * processes, pod.tail(0)
        assert "resuming from gs://" in pod.output(0)
    here, there = (latest_checkpoint(folder / "checkpoints") for folder in (tmp_path / "run", workdir))
    assert here.name == there.name == f"{STEPS:08d}"
    jax.tree.map(np.testing.assert_array_equal, read_arrays(there, FIELDS), read_arrays(here, FIELDS))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    series = [np.sin(np.arange(90) / 9)]
    np.testing.assert_array_equal(load_encoder(str(workdir)).embed(series), load_encoder(tmp_path / "run").embed(series))
