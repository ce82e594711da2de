"""The command line as a user meets it, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from nutime_jax.evaluation.results import read_rows
from nutime_jax.train.checkpoint import latest, read_arrays

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One device, and compilations kept between the processes."""
    cache = str(tmp_path_factory.mktemp("compilations"))
    return {**os.environ, "XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def start(environment, *arguments):
    command = [sys.executable, "-m", "nutime_jax.cli.main", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(environment, *arguments):
    process = start(environment, *arguments)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    return out, err


@pytest.fixture(scope="module")
def workdir(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke")
    out, err = run(environment, "pretrain", "--config=smoke", f"--workdir={folder}", "--profile", "--config.steps=12")
    (folder / "out").write_text(out)
    (folder / "err").write_text(err)
    return folder


def test_a_run_shows_progress_and_ends_in_a_table(workdir):
    out, err = (workdir / "out").read_text(), (workdir / "err").read_text()
    assert re.search(r"smoke: +100%.*series/s, loss 0\.\d+ spread 0\.\d+", err)
    assert "Traceback" not in err
    assert "Warning" not in err
    assert re.search(r"^set +untrained +pretrained +raw 1-NN$", out, re.MULTILINE)
    assert re.search(r"^mean of 2 +\d+\.\d +\d+\.\d +\d+\.\d$", out, re.MULTILINE)


def test_a_run_leaves_metrics_results_and_a_profile(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [2, 4, 6, 8, 10, 12]
    assert all(line.keys() >= {"loss", "spread", "gradient", "momentum", "learning_rate", "series_per_second"} for line in logged)
    assert [line["step"] for line in lines if "probe" in line] == [4, 8, 12]
    rows = read_rows(workdir / "results.csv")
    assert {(row.method, row.protocol) for row in rows} == {
        *((method, probe) for method in ("untrained", "pretrained") for probe in ("ridge", "1nn")),
        ("raw_1nn", "baseline"),
    }
    assert all(0 <= row.value <= 1 for row in rows)
    assert list((workdir / "tensorboard").glob("events*"))
    assert list((workdir / "profile").rglob("*.xplane.pb"))


def test_evaluate_agrees_with_the_run(environment, workdir, tmp_path):
    out, _ = run(environment, "evaluate", f"--checkpoint={workdir}", "--datasets=ArrowHead", f"--output={tmp_path / 'r.csv'}")
    before, again = (read_rows(path) for path in (workdir / "results.csv", tmp_path / "r.csv"))
    assert [replace(row, seconds=0.0) for row in again] == [replace(row, seconds=0.0) for row in before if row.dataset == "ArrowHead"]
    assert "mean of 1" in out


def test_a_sweep_and_its_report(environment, workdir, tmp_path):
    grid = ["protocols=ridge,fewshot,clustering", "baselines=raw_1nn", "layers=0,last", "tasks=5", "sources=GunPoint"]
    encoders = f"encoders=pretrained={workdir},untrained=untrained:{workdir}"
    arguments = ["sweep", "--config=sweep", f"--out={tmp_path}", *(f"--config.{one}" for one in (*grid, encoders))]
    out, _ = run(environment, *arguments)
    assert "results are in" in out
    first = read_rows(tmp_path / "results.csv")
    assert {(row.method, row.protocol) for row in first} == {
        *((method, protocol) for method in ("pretrained", "untrained") for protocol in ("ridge", "fewshot", "clustering")),
        ("raw_1nn", "baseline"),
    }
    run(environment, *arguments)
    assert read_rows(tmp_path / "results.csv") == first  # timings too: nothing was computed again
    run(environment, "report", str(tmp_path), f"--out={tmp_path / 'report.html'}")
    page = (tmp_path / "report.html").read_text()
    assert "GunPoint" in page
    assert "untrained" in page


def test_init_from_starts_from_the_weights(environment, workdir, tmp_path):
    rest = ["--config.evaluation.sources=", "--config.run.probe_every=0", "--config.steps=3", "--config.optim.warmup_rate=0"]
    arguments = ["pretrain", "--config=smoke", f"--workdir={tmp_path}", f"--init_from={workdir}", *rest, "--config.optim.rate=0"]
    _, err = run(environment, *arguments, "--config.optim.final_rate=0")
    assert "starting from the weights in" in err
    ours, theirs = (read_arrays(latest(folder / "checkpoints"), ("params", "target_params")) for folder in (tmp_path, workdir))
    jax.tree.map(np.testing.assert_array_equal, ours["params"], theirs["params"])  # at a rate of zero nothing moves
    online = {name: theirs["params"][name] for name in theirs["target_params"]}
    kept = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ours["target_params"], theirs["target_params"])), strict=True)]
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ours["target_params"], online)), strict=True)]
    assert max(kept) > 0  # the target goes on towards the online network
    assert max(moved) > 0


def test_the_python_of_readme_runs(environment, workdir, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    code = "\n".join(blocks).replace("runs/quickstart", str(workdir))
    script = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert script.returncode == 0


def test_an_interrupted_run_says_how_to_go_on(environment, tmp_path):
    with start(environment, "pretrain", "--config=smoke", f"--workdir={tmp_path}", "--config.steps=9000") as process:
        deadline = time.monotonic() + 240
        while latest_name(tmp_path) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "nutime: interrupted; the same command goes on from the last checkpoint" in err
    assert "Traceback" not in err


def latest_name(workdir):
    names = sorted(path.name for path in (workdir / "checkpoints").glob("0*"))
    return names[-1] if names else None


def test_importing_the_package_is_quick():
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", "import nutime_jax"], cwd=ROOT, check=True)
    assert time.monotonic() - start < 1.5
