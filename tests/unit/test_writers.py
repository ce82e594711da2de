import json
from types import SimpleNamespace

import pytest

from nutime_jax.training import metrics
from nutime_jax.training.metrics import TIMINGS, MetricWriter, StepTimer


def test_a_resumed_run_leaves_one_record_of_every_step(tmp_path):
    writer = MetricWriter(tmp_path, start=0)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 1.0 / step})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # what a kill leaves
    writer = MetricWriter(tmp_path, start=2)
    writer.write(3, {"loss": 0.25})
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    assert list((tmp_path / "tensorboard").iterdir())


def test_steps_and_waits_are_timed(monkeypatch):
    clock = iter([0.0, 1.0, 1.5, 2.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    device = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 2 * 10**9})
    timer = StepTimer(batch_size=8, start=10, device=device, ideal_s=0.5)
    assert list(timer.iterate("ab")) == ["a", "b"]
    found = timer.report(12)  # two steps in four seconds; the first batch took half a second
    expected = {"series_per_second": 4.0, "step_ms": 2000.0, "input_wait_ms": 250.0, "mfu": 0.25, "device_memory_gb": 2.0}
    assert found == pytest.approx(expected)
    assert tuple(found) == TIMINGS
