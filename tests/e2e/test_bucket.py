"""A run whose workdir is in a bucket, killed and resumed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from nutime_jax import load_encoder
from nutime_jax.cli.main import main
from nutime_jax.storage import list_names, resolve_path
from nutime_jax.training.checkpoints import latest_checkpoint, read_arrays

ROOT = Path(__file__).parents[2]
FIELDS = ("params", "variables", "target_params", "target_variables", "opt_state", "step")


def arguments(workdir, data):
    fields = ["steps=12", "run.log_every=1", "run.probe_every=0", f"data.dir={data}", "data.sources=ArrowHead", "evaluation.sources="]
    return ["pretrain", "--config=smoke", f"--workdir={workdir}", "--devices=1", *(f"--config.{field}" for field in fields)]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_one_on_this_machine(bucket, tmp_path):
    workdir, data = resolve_path(f"{bucket}/run"), tmp_path / "data"
    assert main(arguments(tmp_path / "run", data)) == 0
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = {**os.environ, **cache, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "nutime_jax.cli.main", *arguments(workdir, data)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while "manifest.json" not in list_names(workdir / "checkpoints" / "00000003") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert 3 <= int(latest_checkpoint(workdir / "checkpoints").name) < 12
    assert main(arguments(workdir, data)) == 0
    here, there = (latest_checkpoint(folder / "checkpoints") for folder in (tmp_path / "run", workdir))
    assert here.name == there.name == "00000012"
    jax.tree.map(np.testing.assert_array_equal, read_arrays(there, FIELDS), read_arrays(here, FIELDS))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    series = [np.sin(np.arange(90) / 9)]
    np.testing.assert_array_equal(load_encoder(str(workdir)).embed(series), load_encoder(tmp_path / "run").embed(series))
