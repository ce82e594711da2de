"""The benchmark for one accelerator, on a CPU at small sizes."""

import json
import sys

import pytest

from benchmarks import accelerator


@pytest.mark.thorough
def test_every_part_is_measured_and_written(tmp_path, monkeypatch, capsys):
    out = tmp_path / "results.json"
    small = ["--config=smoke", "--batches=16", "--seconds=0.1", "--series=32", "--datasets=GunPoint"]
    monkeypatch.setattr(sys, "argv", ["accelerator", *small, f"--out={out}"])
    accelerator.main()
    results = json.loads(out.read_text())
    assert set(results["training"]) == {f"{precision}, batch 16" for precision in accelerator.PRECISIONS}
    assert all(found["series_per_second"] > 0 and found["steps"] > 1 for found in results["training"].values())
    assert sum(row["share"] for row in results["operations"]) <= 1.001
    assert results["operations"][0]["ms"] >= results["operations"][-1]["ms"] > 0
    assert results["embedding"]["length 512"] > 0
    assert results["sweep"]["cells"] > 0
    table = out.with_suffix(".md").read_text()
    assert "| bfloat16 | 16 |" in table
    assert table.strip() in capsys.readouterr().out

    # Without time, one case is measured and profiled.
    monkeypatch.setattr(sys, "argv", ["accelerator", *small, "--minutes=0", f"--out={tmp_path / 'first.json'}"])
    accelerator.main()
    first = json.loads((tmp_path / "first.json").read_text())
    assert (list(first["training"]), first["profiled"]) == (["float32, batch 16"], "float32, batch 16")
    assert not {"embedding", "sweep"} & set(first)
