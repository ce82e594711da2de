"""The command line as a user meets it: one trained run, and what is done with it."""

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

from nutime_jax.cli.main import main
from nutime_jax.evaluation.results import read_rows
from nutime_jax.loading import load_encoder
from nutime_jax.training.checkpoints import latest_checkpoint, read_arrays
from tests.conftest import SMOKE_RUN

ROOT = Path(__file__).parents[2]


def run(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def test_a_run_shows_progress_and_ends_in_a_table(smoke_run):
    out, err = smoke_run.with_suffix(".out").read_text(), smoke_run.with_suffix(".err").read_text()
    lines = [line for line in err.splitlines() if " smoke: " in line]
    assert "\r" not in err
    assert lines[0].endswith("? series/s, compiling]")
    assert re.search(r"smoke: +100%.*series/s, step 12, loss 0\.\d+, lr [\d.e-]+, projection std 0\.\d+", lines[-1])
    assert [int(re.search(r"step (\d+)", line)[1]) for line in lines[1:]] == [2, 4, 6, 8, 10, 12]
    assert "Traceback" not in err
    assert "Warning" not in err
    assert re.search(r"^dataset +untrained +smoke_run +raw 1-NN$", out, re.MULTILINE)
    assert re.search(r"^mean of 2 +\d+\.\d +\d+\.\d +\d+\.\d$", out, re.MULTILINE)


def test_a_run_leaves_metrics_results_and_a_profile(smoke_run):
    lines = [json.loads(line) for line in (smoke_run / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [2, 4, 6, 8, 10, 12]
    assert all(
        line.keys() >= {"loss", "projection_std", "grad_norm", "momentum", "learning_rate", "series_per_second", "step_ms", "input_wait_ms"}
        for line in logged
    )
    assert [line["step"] for line in lines if "probe_accuracy" in line] == [4, 8, 12]
    rows = read_rows(smoke_run / "results.csv")
    assert {(row.method, row.protocol) for row in rows} == {
        *((method, probe) for method in ("untrained", "smoke_run") for probe in ("kernel", "1nn")),
        ("raw_1nn", "baseline"),
    }
    assert all(0 <= row.value <= 1 for row in rows)
    assert list((smoke_run / "tensorboard").glob("events*"))
    assert list((smoke_run / "profile").rglob("*.xplane.pb"))


def test_evaluate_agrees_with_the_run(smoke_run, tmp_path, capsys):
    run("evaluate", f"--encoder={smoke_run}", "--dataset=ArrowHead", f"--out={tmp_path / 'r.csv'}")
    before, again = (read_rows(path) for path in (smoke_run / "results.csv", tmp_path / "r.csv"))
    assert [replace(row, seconds=0.0) for row in again] == [replace(row, seconds=0.0) for row in before if row.dataset == "ArrowHead"]
    assert "mean of 1" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_and_its_report(smoke_run, tmp_path, capsys):
    grid = ["protocols=ridge,fewshot,clustering", "baselines=raw_1nn", "layers=0,last", "tasks=5", "sources=GunPoint"]
    encoders = f"encoders=pretrained={smoke_run},untrained=untrained:{smoke_run}"
    arguments = ["sweep", "--config=sweep", f"--out={tmp_path}", *(f"--config.{one}" for one in (*grid, encoders))]
    run(*arguments)
    assert "results are in" in capsys.readouterr().out
    first = read_rows(tmp_path / "results.csv")
    assert {(row.method, row.protocol) for row in first} == {
        *((method, protocol) for method in ("pretrained", "untrained") for protocol in ("ridge", "fewshot", "clustering")),
        ("raw_1nn", "baseline"),
    }
    run(*arguments)
    assert read_rows(tmp_path / "results.csv") == first  # timings too: nothing was computed again
    run("report", tmp_path, f"--out={tmp_path / 'report.html'}")
    page = (tmp_path / "report.html").read_text()
    assert "GunPoint" in page
    assert "untrained" in page


@pytest.mark.slow
def test_init_from_starts_from_the_weights(smoke_run, tmp_path, caplog):
    rest = [*SMOKE_RUN, "--config.evaluation.sources=", "--config.run.probe_every=0", "--config.steps=3", "--config.optim.warmup_lr=0"]
    arguments = ["pretrain", "--config=smoke", f"--workdir={tmp_path}", f"--init_from={smoke_run}", *rest, "--config.optim.lr=0"]
    with caplog.at_level("INFO"):
        run(*arguments, "--config.optim.min_lr=0")
    assert "starting from the weights in" in caplog.text
    ours, theirs = (read_arrays(latest_checkpoint(folder / "checkpoints"), ("params", "target_params")) for folder in (tmp_path, smoke_run))
    jax.tree.map(np.testing.assert_array_equal, ours["params"], theirs["params"])  # at a rate of zero nothing moves
    online = {name: theirs["params"][name] for name in theirs["target_params"]}
    kept = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ours["target_params"], theirs["target_params"])), strict=True)]
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (ours["target_params"], online)), strict=True)]
    assert max(kept) > 0  # the target goes on towards the online network
    assert max(moved) > 0


@pytest.mark.slow
def test_pretraining_continues_from_a_saved_encoder_of_any_objective(smoke_run, tmp_path, capsys):
    load_encoder(smoke_run).save(tmp_path / "encoder")
    options = ["steps=3", "batch_size=8", "optim.lr=0", "optim.warmup_lr=0", "optim.min_lr=0", "optim.warmup_steps=1"]
    options += ["data.sources=ArrowHead", "evaluation.sources=ArrowHead"]
    overrides = [f"--config.{option}" for option in options]
    run("pretrain", "--config=continued", f"--workdir={tmp_path / 'run'}", f"--init_from={tmp_path / 'encoder'}", *overrides)
    before, after = load_encoder(tmp_path / "encoder"), load_encoder(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, before.variables, after.variables)
    assert (after.pooling, after.config.model) == (before.pooling, before.config.model)
    rows = {(row.method, row.protocol): row.value for row in read_rows(tmp_path / "run" / "results.csv") if row.metric == "accuracy"}
    assert rows["initial", "kernel"] == rows["run", "kernel"]
    assert "initial" in capsys.readouterr().out


def test_the_python_of_readme_runs(smoke_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    code = "\n".join(blocks)
    for name in ("runs/quickstart", "nutime-small"):  # an encoder that is quick
        code = code.replace(f'"{name}"', repr(str(smoke_run)))
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    # A shell starts background jobs with SIGINT ignored, and children inherit that: this one restores Python's handler.
    code = "import signal, sys; from nutime_jax.cli.main import main; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
    command = [sys.executable, "-c", code, "pretrain", "--config=smoke", f"--workdir={tmp_path}", "--config.steps=9000"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not list((tmp_path / "checkpoints").glob("0*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "nutime: interrupted; rerun the same command to resume from the last checkpoint" in err
    assert "Traceback" not in err


def test_importing_the_package_is_quick():
    """In seconds of the processor, which other processes on the machine do not change."""
    code = "import nutime_jax, time; assert time.process_time() < 1.5, time.process_time()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""}, check=True)
