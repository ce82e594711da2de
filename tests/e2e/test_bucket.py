"""A run whose workdir is in a bucket, killed and resumed."""

import json
import signal

import jax
import numpy as np
import pytest

from launch.simulate_pod import Pod
from nutime_jax import load_encoder
from nutime_jax.storage import resolve_path
from nutime_jax.training.checkpoints import latest_checkpoint, list_checkpoints, read_arrays

FIELDS = ("params", "variables", "target_params", "target_variables", "opt_state", "step")


STEPS, EVERY = 24, 3


def arguments(workdir, data):
    run = [f"steps={STEPS}", f"run.checkpoint_every={EVERY}", "run.log_every=1", "run.probe_every=0", "model.depth=1"]
    fields = [*run, f"data.dir={data}", "data.sources=ArrowHead", "evaluation.sources="]
    return ["pretrain", "--config=smoke", f"--workdir={workdir}", *(f"--config.{field}" for field in fields)]


def has_checkpoint(workdir):
    """Return whether a complete checkpoint exists. A fast run deletes the first ones."""
    return bool(list_checkpoints(workdir / "checkpoints"))


@pytest.mark.slow
def test_a_killed_run_goes_on_as_one_on_this_machine(bucket, tmp_path):
    workdir, data = resolve_path(f"{bucket}/run"), tmp_path / "data"
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    layout = {"processes": 1, "devices": 1, "environment": cache}
    with Pod(["nutime", *arguments(tmp_path / "run", data)], logs=tmp_path / "logs", **layout) as pod:
        assert pod.start().wait(timeout=400) == [0], pod.tail(0)
    with Pod(["nutime", *arguments(workdir, data)], logs=tmp_path / "logs", **layout) as pod:
        pod.start().wait_until(lambda: has_checkpoint(workdir), timeout=400)
        pod.kill(0)
        assert pod.wait(timeout=400) == [-signal.SIGKILL], pod.tail(0)
        assert EVERY <= int(latest_checkpoint(workdir / "checkpoints").name) < STEPS
        assert pod.start().wait(timeout=400) == [0], pod.tail(0)
        assert "resuming from gs://" in pod.output(0)
    here, there = (latest_checkpoint(folder / "checkpoints") for folder in (tmp_path / "run", workdir))
    assert here.name == there.name == f"{STEPS:08d}"
    jax.tree.map(np.testing.assert_array_equal, read_arrays(there, FIELDS), read_arrays(here, FIELDS))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    series = [np.sin(np.arange(90) / 9)]
    np.testing.assert_array_equal(load_encoder(str(workdir)).embed(series), load_encoder(tmp_path / "run").embed(series))
