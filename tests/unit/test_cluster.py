"""Features on a cluster: those of one machine, with labels and ids; lost workers are replaced."""

import contextlib
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from nutime_jax.cluster import distributed_embed, embed_frames
from nutime_jax.config import load_config
from nutime_jax.data.parts import list_parts, make_empty_folder
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder, untrained_encoder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return untrained_encoder(load_config("smoke", ["model.depth=1"])).save(tmp_path_factory.mktemp("encoder") / "tiny")


def make_frame(count):
    values = np.random.default_rng(0).normal(size=(count, 40)).astype(np.float32)
    frame = pd.DataFrame(values).rename(columns=str)
    return values, frame.assign(series_id=[f"s{i}" for i in range(count)], label="x")


def test_frames_are_embedded_as_on_one_machine(encoder):
    values, frame = make_frame(30)
    embedded = pd.concat(embed_frames([frame[:10], frame[10:]], encoder, pooling="mean"))
    assert embedded["id"].tolist() == frame["series_id"].tolist()
    assert set(embedded["label"]) == {"x"}
    expected = load_encoder(encoder).embed(values, pooling="mean")
    np.testing.assert_allclose(embedded.filter(regex="^f[0-9]").to_numpy(), expected, rtol=0, atol=1e-5)


def test_frames_of_other_forms_are_rejected(encoder):
    long = pd.DataFrame({"id": ["a", "a", "b", "b"], "time": [0, 1, 0, 1], "value": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(InputError, match="4 rows are 2 series; write one row per series"):
        list(embed_frames([long], encoder))
    with pytest.raises(InputError, match="choose channels='mean' or 'concat'"):
        list(embed_frames([make_frame(3)[1]], encoder, channels="none"))


def test_parts_are_row_groups_in_order_and_outputs_are_not_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr("nutime_jax.data.parts.MAX_PART_ROWS", 100)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "notes.txt").write_text("mine")
    _, frame = make_frame(250)
    frame.to_parquet(tmp_path / "in" / "b.parquet", row_group_size=60)
    frame[:0].to_parquet(tmp_path / "in" / "c.parquet")
    frame[:30].to_parquet(tmp_path / "in" / "deep" / "d.parquet")
    assert len(list_parts(str(tmp_path / "in"), workers=4)) == 6  # small ones, so that all have something to do
    monkeypatch.setattr("nutime_jax.data.parts.PARTS_PER_WORKER", 1)
    parts = [(Path(part["path"]).name, part["groups"], part["name"]) for part in list_parts(str(tmp_path / "in"), workers=1)]
    assert parts == [
        ("b.parquet", [0, 1], "000000.parquet"),
        ("b.parquet", [2, 3], "000001.parquet"),
        ("b.parquet", [4], "000002.parquet"),
        ("d.parquet", [0], "000003.parquet"),
    ]
    with pytest.raises(InputError, match="in has files; choose another folder, or empty it"):
        make_empty_folder(str(tmp_path / "in"))
    with pytest.raises(InputError, match="none has no Parquet file"):
        list_parts(str(tmp_path / "none"), workers=1)
    (tmp_path / "in" / "b.parquet").write_bytes(b"PAR1" * 20)
    with pytest.raises(InputError, match=r"b.parquet cannot be read as .parquet \(.*\); write it again"):
        list_parts(str(tmp_path / "in"), workers=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_a_killed_ray_worker_loses_nothing(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # otherwise a token is written to the home directory
    ray = pytest.importorskip("ray")
    values, frame = make_frame(1600)
    (tmp_path / "in").mkdir()
    for part in range(4):
        frame[part * 400 : (part + 1) * 400].to_parquet(tmp_path / "in" / f"{part}.parquet", row_group_size=100)
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}})
    try:
        killer = threading.Thread(target=_kill_an_actor, daemon=True)
        killer.start()
        distributed_embed(encoder, str(tmp_path / "in"), str(tmp_path / "out"), workers=2, rows_per_batch=100)
        killer.join(timeout=1)
        assert not killer.is_alive(), "no actor was killed"
    finally:
        ray.shutdown()
    embedded = pd.read_parquet(tmp_path / "out").set_index("id").loc[frame["series_id"]]
    assert len(embedded) == 1600
    expected = load_encoder(encoder).embed(values)
    np.testing.assert_allclose(embedded.filter(regex="^f[0-9]").to_numpy(), expected, rtol=0, atol=1e-5)


def _kill_an_actor() -> None:
    """Kill the first actor of this process that embeds, by the title that Ray gives it."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "MapWorker" in " ".join(process.cmdline()):
                    time.sleep(0.5)
                    process.kill()
                    return
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spark_maps_frames(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    sql = pytest.importorskip("pyspark.sql")
    values, frame = make_frame(200)
    frame.to_parquet(tmp_path / "in.parquet")
    spark = sql.SparkSession.builder.master("local[2]").config("spark.executorEnv.PYTHONPATH", str(ROOT)).getOrCreate()
    try:
        width = load_encoder(encoder).embed(values[:1]).shape[1]
        schema = ", ".join(["id string", "label string", *(f"f{i} float" for i in range(width))])
        table = spark.read.parquet(str(tmp_path / "in.parquet"))
        embedded = table.mapInPandas(partial(embed_frames, encoder=str(encoder)), schema).toPandas()
    finally:
        spark.stop()
    expected = load_encoder(encoder).embed(values)
    actual = embedded.set_index("id").loc[frame["series_id"]].filter(regex="^f[0-9]").to_numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
