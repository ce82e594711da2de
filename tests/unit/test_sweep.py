from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from nutime_jax import embedding, storage
from nutime_jax.config import SweepConfig, load_config
from nutime_jax.data.datasets import find_datasets
from nutime_jax.errors import InputError
from nutime_jax.evaluation import sweep as sweeps
from nutime_jax.evaluation.encoders import find_encoders
from nutime_jax.evaluation.features import FeatureSpec, layer_features, read_features
from nutime_jax.evaluation.protocols import registry
from nutime_jax.evaluation.results import CellStore, Result, SweepCell
from nutime_jax.evaluation.sweep import Sweep, make_runs
from tests.encoders import smoke_encoder

SMALL = ["encoders=small=somewhere", "baselines=raw_1nn", "protocols=ridge,clustering", "layers=0,last", "tasks=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three sets of different numbers of cases, channels, classes and points; another with a single class."""
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for name, cases, channels, length, classes in (("a", 24, 1, 40, 2), ("b", 70, 2, 90, 5), ("c", 9, 1, 8, 3), ("d", 6, 1, 20, 1)):
        arrays = {}
        for split in ("train", "test"):
            labels = np.arange(cases) % classes
            arrays[f"X_{split}"] = rng.normal(size=(cases, channels, length)) + labels[:, None, None]
            arrays[f"y_{split}"] = labels
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def encoder():
    return smoke_encoder()


@pytest.fixture(autouse=True)
def contenders(monkeypatch, encoder):
    """One encoder, of whatever path."""
    monkeypatch.setattr(sweeps, "find_encoders", partial(find_encoders, load=lambda where: encoder))


def configured(folder, *overrides):
    return load_config("sweep", [*SMALL, f"sources={folder}", *overrides], schema=SweepConfig)


def run(config, folder, out, *, leave_out="", **options):
    sweep = Sweep(config, [one for one in find_datasets(str(folder)) if one.name != leave_out], out, **options)
    for _ in sweep.run():
        pass
    return sweep


def timeless(rows):
    return sorted((replace(row, seconds=0.0) for row in rows), key=repr)


def test_every_cell_is_filled_and_failures_are_listed(folder, tmp_path):
    sweep = run(configured(folder), folder, tmp_path)
    ridge = [row for row in sweep.rows if (row.protocol, row.metric) == ("ridge", "accuracy")]
    assert [(row.dataset, row.setting.split()[0]) for row in ridge] == [
        (name, layer) for name in "abc" for layer in ("layer=0", "layer=last")
    ]
    assert {row.method for row in sweep.rows} == {"small", "raw_1nn"}
    assert {row.metric for row in sweep.rows if row.protocol == "clustering"} == {"nmi", "ari", "ri", "accuracy"}
    assert all((row.train_cases, row.test_cases) == (24, 24) for row in sweep.rows if row.dataset == "a")
    failed = {(one.dataset, one.method, one.protocol) for one in sweep.failures}
    assert failed == {("d", "small", "ridge"), ("d", "raw_1nn", "baseline")}
    assert all("class" in one.message or "label" in one.message for one in sweep.failures)


def test_a_sweep_that_was_stopped_goes_on_to_the_same_table(folder, tmp_path, monkeypatch):
    config = configured(folder)
    whole = run(config, folder, tmp_path / "whole")
    for stop in (1, 2, 5, 9):
        for number, _ in enumerate(Sweep(config, find_datasets(str(folder)), tmp_path / "stopped").run(), 1):
            if number == stop:
                break
    computed = []
    monkeypatch.setattr(registry, "probe_metrics", lambda *args, **options: computed.append(args) or {"accuracy": 0.5})
    monkeypatch.setattr(registry, "layer_features", lambda *args, **options: pytest.fail("features are computed again"))
    again = run(config, folder, tmp_path / "whole", leave_out="d")  # whose cells fail, and are tried again
    assert timeless(again.rows) == timeless(row for row in whole.rows if row.dataset != "d")
    assert not computed
    monkeypatch.undo()
    monkeypatch.setattr(sweeps, "find_encoders", partial(find_encoders, load=lambda where: whole._encoders[0].encoder))
    assert timeless(run(config, folder, tmp_path / "stopped").rows) == timeless(whole.rows)


def test_a_repetition_is_computed_once_whatever_its_number(folder, tmp_path, monkeypatch, encoder):
    of = {"x": encoder, "y": smoke_encoder("seed=7")}
    monkeypatch.setattr(sweeps, "find_encoders", partial(find_encoders, load=of.get))
    rest = ["baselines=raw_forest", "protocols=ridge", "layers=last"]
    alone = run(configured(folder, "encoders=e=y", *rest, "seeds=1"), folder, tmp_path, leave_out="d")
    computed, probe = [], registry.probe_metrics
    monkeypatch.setattr(registry, "probe_metrics", lambda *args, **options: computed.append(args) or probe(*args, **options))
    both = run(configured(folder, "encoders=e=x,e=y", *rest, "seeds=1,2"), folder, tmp_path, leave_out="d")
    assert len(computed) == 3
    ours, theirs = (
        {(row.dataset, row.metric): row.value for row in sweep.rows if (row.method, row.seed) == ("e", number)}
        for sweep, number in ((both, 1), (alone, 0))
    )
    assert ours == theirs
    forests = [row for row in both.rows if row.method == "raw_forest" and row.metric == "accuracy"]
    assert [row.seed for row in forests] == [1, 2] * 3
    assert len(list((tmp_path / "cells").iterdir())) == 3 * 4


def test_shards_are_the_sweep(folder, tmp_path):
    config = configured(folder)
    whole = run(config, folder, tmp_path / "whole")
    parts = [run(config, folder, tmp_path / "parts", shard=i, shards=3).rows for i in range(3)]
    assert timeless(row for part in parts for row in part) == timeless(whole.rows)


def test_compilations_do_not_grow_with_the_sets(folder, tmp_path):
    embedding._encode.clear_cache()
    run(configured(folder, "baselines="), folder, tmp_path)
    assert 1 <= embedding._encode._cache_size() <= 4


def test_features_are_kept_by_content(folder, tmp_path, encoder, monkeypatch):
    cases = find_datasets(str(folder / "a.npz"))[0].read("train")
    first = layer_features(encoder, cases, cache=tmp_path)
    assert (first.tokens.shape, first.stem.shape[:2]) == ((24, 1, 3, 2, 16), (24, 1))
    monkeypatch.setattr(type(encoder), "embed_layers", lambda *args, **options: pytest.fail("computed again"))
    jax.tree.map(np.testing.assert_array_equal, layer_features(encoder, cases, cache=tmp_path), first)
    other = replace(encoder, variables=jax.tree.map(lambda leaf: leaf + 1, encoder.variables))
    with pytest.raises(pytest.fail.Exception):
        layer_features(other, cases, cache=tmp_path)
    cases.series[0][0, 0] += 1
    with pytest.raises(pytest.fail.Exception):
        layer_features(encoder, cases, cache=tmp_path)


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "spec",
    [
        FeatureSpec(),
        slow(FeatureSpec(0, "cls", "mean")),
        FeatureSpec(0, "mean"),
        slow(FeatureSpec(1, "cls+mean", "mean")),
        slow(FeatureSpec(None, "all_layers")),
        slow(FeatureSpec(None, "all_layers", input_lengths=(64, 16))),
        slow(FeatureSpec(1, "cls", "mean", (128,))),
        slow(FeatureSpec(1, input_lengths=(32, 64), num_window_offsets=4)),
        FeatureSpec(None, "all_layers+stem", input_lengths=(0,), diff_orders=(0, 1)),
        FeatureSpec(1, "cls", "mean", (64, 32), 2, (1,)),
    ],
)
def test_layers_read_at_once_are_those_that_are_embedded(folder, encoder, spec):
    spec = spec.of(encoder)
    cases = find_datasets(str(folder / "b.npz"))[0].read("test")
    lengths, shifts, orders = spec.input_lengths or encoder.input_lengths, spec.num_window_offsets or 1, spec.diff_orders or (0,)
    expected = encoder.with_options(input_lengths=lengths, num_window_offsets=shifts, diff_orders=orders).embed(
        cases.series, layer=spec.layer, pooling=spec.pooling, channels=spec.channels
    )
    apart = [
        encoder.with_options(input_lengths=(length,), num_window_offsets=shifts, diff_orders=(order,))
        for order in orders
        for length in lengths
    ]
    ours = read_features([layer_features(one, cases) for one in apart], spec)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_encoders_of_one_name_are_repetitions(folder, tmp_path):
    config = configured(folder, "encoders=e=x,e=y,u=untrained:x", "baselines=", "protocols=ridge,fewshot", "layers=last", "seeds=0,1")
    assert [(one.name, one.number) for one in sweeps.find_encoders(config.encoders)] == [("e", 0), ("e", 1), ("u", 0)]
    config = configured(folder / "a.npz", *["encoders=e=x,e=y", "baselines=", "protocols=ridge,fewshot", "layers=last", "seeds=0,1"])
    rows = [row for row in run(config, folder / "a.npz", tmp_path).rows if row.metric == "accuracy"]
    assert sorted((row.protocol, row.seed) for row in rows) == [("fewshot", i) for i in range(4)] + [("ridge", 0), ("ridge", 1)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocols=svm", "protocol 'svm' is unknown; choose of kernel"),
        ("layers=7", "layer '7' does not exist; choose all, last, or 0 to 1"),
        ("input_lengths=short", "length short cannot be embedded; choose a multiple of window_size 16, up to"),
        ("input_lengths=64+30", "length 30 cannot be embedded"),
        ("input_lengths=64+64", "lengths are 64, 64; name each once"),
        ("num_window_offsets=few", "num_window_offsets is 'few'; choose an integer from 1"),
        ("num_window_offsets=17", "num_window_offsets is 17; choose an integer from 1"),
        ("diff_orders=0+first", "diff_orders has first"),
    ],
)
def test_a_wrong_grid_is_rejected(folder, tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        Sweep(configured(folder, override), [], tmp_path)


def test_all_layers_are_read(encoder):
    config = load_config("sweep", [*SMALL[:3], "layers=all"], schema=SweepConfig)
    assert len([run for run in make_runs(config, encoder) if run.protocol == "ridge"]) == 3


def test_lengths_and_shifts_are_read_apart_and_together(folder, tmp_path):
    fields = ["input_lengths=encoder,32,64+32", "num_window_offsets=encoder,2", "protocols=ridge", "layers=last", "baselines="]
    config = configured(folder / "a.npz", *fields)
    rows = [row for row in run(config, folder / "a.npz", tmp_path).rows if row.metric == "accuracy"]
    settings = [row.setting.partition("channels=concat")[2].partition(" scaler")[0].strip() for row in rows]
    assert settings == [
        "",
        "num_window_offsets=2",
        "input_lengths=32",
        "input_lengths=32 num_window_offsets=2",
        "input_lengths=64+32",
        "input_lengths=64+32 num_window_offsets=2",
    ]
    assert len(list((tmp_path / "features").iterdir())) == 8  # two lengths, once and twice, of two splits


def test_differences_are_read_apart_and_together(folder, tmp_path):
    fields = ["diff_orders=encoder,1,0+1", "protocols=ridge", "layers=last", "baselines="]
    rows = [row for row in run(configured(folder / "a.npz", *fields), folder / "a.npz", tmp_path).rows if row.metric == "accuracy"]
    settings = [row.setting.partition("channels=concat")[2].partition(" scaler")[0].strip() for row in rows]
    assert settings == ["", "diff_orders=1", "diff_orders=0+1"]
    assert len(list((tmp_path / "features").iterdir())) == 4  # series and differences, of two splits


def test_a_damaged_cell_is_computed_again(tmp_path):
    store, cell = CellStore(tmp_path), SweepCell("m", "d", "ridge", "", 0, "x")
    assert store.read(cell) is None
    row = Result("m", "d", "ridge", "", 0, "accuracy", 1 / 3)
    store.write(cell, [row])
    assert store.read(cell) == [row]
    (path,) = (tmp_path / "cells").iterdir()
    content = path.read_bytes()
    for damaged in (content[:-3], content.replace(b"ridge", b"rigde"), b"[]", b"[1]", b"{}x"):
        path.write_bytes(damaged)
        assert store.read(cell) is None


def test_a_flipped_bit_or_a_full_disk_changes_no_table(folder, tmp_path, monkeypatch, caplog):
    config = configured(folder / "a.npz", "protocols=ridge", "layers=last", "baselines=")
    whole = run(config, folder / "a.npz", tmp_path)
    for path in tmp_path.glob("*/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert timeless(run(config, folder / "a.npz", tmp_path).rows) == timeless(whole.rows)
    monkeypatch.setattr(storage, "write_bytes", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert timeless(run(config, folder / "a.npz", tmp_path / "full").rows) == timeless(whole.rows)
    assert "features are not kept: " in caplog.text
    assert "a cell is not kept: " in caplog.text


def test_a_cell_that_fails_ends_no_other(folder, tmp_path, monkeypatch):
    config = configured(folder / "a.npz", "protocols=ridge,clustering", "layers=last", "baselines=")
    monkeypatch.setattr(registry, "probe_metrics", lambda *_, **__: (_ for _ in ()).throw(ValueError("Input X contains NaN")))
    sweep = run(config, folder / "a.npz", tmp_path)
    assert {failure.message for failure in sweep.failures} == {"ValueError: Input X contains NaN"}
    assert {row.protocol for row in sweep.rows} == {"clustering"}
