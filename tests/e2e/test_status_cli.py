"""`nutime status` of runs that began, that run, and that are finished."""

import json

import pytest

from nutime_jax.cli.main import main

METRICS = [
    {"step": 10, "loss": 0.5, "learning_rate": 1e-3, "series_per_second": 100.0},
    {"step": 10, "probe_accuracy": 0.75},
    {"step": 20, "loss": 0.25, "learning_rate": 1e-3, "series_per_second": 200.0},
]


@pytest.fixture
def workdir(tmp_path):
    lines = [json.dumps(values) for values in METRICS]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 30, "lo']))
    folder = tmp_path / "checkpoints" / "00000015"
    folder.mkdir(parents=True)
    (folder / "about.json").write_text(json.dumps({"step": 15, "config": {"steps": 120, "batch_size": 40}}))
    (folder / "manifest.json").write_text("{}")
    return tmp_path


def test_a_running_job(workdir, capfd):
    assert main(["status", str(workdir), "--json"]) == 0
    status = json.loads(capfd.readouterr().out)
    assert (status["step"], status["steps"], status["checkpoint_step"]) == (20, 120, 15)
    assert (status["probe_step"], status["probe_accuracy"]) == (10, 0.75)
    assert status["seconds_left"] == 100 * 40 / 200
    assert 0 <= status["seconds_since_update"] < 60
    assert main(["status", str(workdir)]) == 0
    out = capfd.readouterr().out
    assert "step        20 of 120 (17%)" in out
    assert "time left   0:00:20" in out
    assert "probe       75.0 % at step 10" in out


def test_a_run_without_a_checkpoint_has_no_end_yet(workdir, capfd):
    for path in sorted(workdir.glob("checkpoints/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert main(["status", str(workdir)]) == 0
    assert capfd.readouterr().out.startswith("step        20\nloss        0.25000")


def test_another_folder_is_one_sentence(tmp_path, capfd):
    assert main(["status", str(tmp_path / "nowhere")]) == 2
    assert "has no metrics and no checkpoint" in capfd.readouterr().err
