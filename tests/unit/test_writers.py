import json

from nutime_jax.training.hooks import MetricWriter


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
