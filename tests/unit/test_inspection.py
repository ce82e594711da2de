"""Facts are counted on small sets whose facts are known, and on real ones against their arrays."""

import json
from dataclasses import astuple

import numpy as np
import pytest

from nutime_jax.data.datasets import find_datasets
from nutime_jax.data.inspection import inspect_dataset, sort_labels, total
from nutime_jax.data.report import format_details, format_table, plot_series, write_json
from nutime_jax.errors import InputError

NAN = np.nan


def save(path, **arrays):
    np.savez(path, **{name: np.asarray(values) for name, values in arrays.items()})
    return inspect_dataset(find_datasets(str(path))[0])


@pytest.fixture
def known(tmp_path):
    """Of lengths 3 to 4, with padding, a hole, a constant, repetitions and a leak."""
    train = [[1, 3, 1, 3], [NAN, 5, 5, 5], [1, NAN, 3, NAN], [1, 3, 1, 3]]
    test = [[1, NAN, 3, NAN], [100, 300, 100, 300], [0, 1, 2, 3]]
    return save(tmp_path / "known.npz", X_train=train, y_train=[2, 10, 2, 2], X_test=test, y_test=[2, 2, 7])


def test_what_is_counted(known):
    train, test = known.splits["train"], known.splits["test"]
    assert (known.name, known.format, known.leaked) == ("known", "npz", 1)
    assert (train.cases, train.channels, train.series, train.values) == (4, 1, 4, 14)
    assert (train.shortest, train.longest) == (3, 4)
    assert list(train.classes.items()) == [("2", 3), ("10", 1)]
    assert (train.padding, train.missing) == (2 / 16, 1 / 14)
    assert (train.constant, train.repeated, test.repeated) == (1, 1, 0)
    assert train.flat_windows is None
    assert train.log_mean.max == np.log10(5)
    assert test.log_std.max == pytest.approx(2, abs=1e-12)
    assert total([known, known]) == {"sets": 2, "train_cases": 8, "test_cases": 6, "series": 14, "values": 50}


def test_scales_at_the_ends_of_float32(tmp_path):
    shape = np.array([[-1.0, 1, -1, 1]])
    facts = save(tmp_path / "a.npz", X_train=np.concatenate([shape * 1e-30, shape, shape * 1e30])).splits["train"]
    assert astuple(facts.log_std) == pytest.approx((-30, 0, 30), abs=1e-6)
    assert facts.log_mean is None
    offset = save(tmp_path / "b.npz", X_train=np.full((1, 100), 0.1) + 1e6).splits["train"]
    assert (offset.constant, offset.log_std, offset.flat_windows) == (1, None, 1.0)


def test_flat_windows(tmp_path):
    x = np.concatenate([np.arange(16), np.full(16, 15) + 1e-4 * np.arange(16), np.arange(10)])
    assert save(tmp_path / "a.npz", X_train=[x]).splits["train"].flat_windows == 0.5


def test_padding_does_not_hide_repetitions(tmp_path):
    other_nan = np.array([0x7FF8000000000001]).view(np.float64)[0]
    facts = save(tmp_path / "a.npz", X_train=[[1, NAN, 0.0, NAN]], X_test=[[1, other_nan, -0.0]])
    assert facts.leaked == 1
    assert save(tmp_path / "b.npz", X_train=[[[1, 2], [3, 4]]], X_test=[[[1, 2, 3, 4]]]).leaked == 0


def test_labels_are_in_order():
    assert sort_labels(["10", "b", "9", "a", "-1", "9"]) == ["9", "10", "-1", "a", "b"]


def test_a_sheet_and_a_table_fit_the_terminal(known, tmp_path):
    lone = save(tmp_path / ("long" * 20 + ".npz"), X_train=[[1.0, 2.0]])
    sheet, table = format_details(known), format_table([known, lone])
    assert max(map(len, table.splitlines())) <= 100
    assert all(line == line.rstrip() for line in [*sheet.splitlines(), *table.splitlines()])
    for line in ("cases that are in train too", "classes of test that train does not have: 7"):
        assert line in sheet
    for line in ("longlong", "2 sets", "known, test cases that are in train too: 1 of 3", "known, repeated train cases: 1 of 4"):
        assert line in table
    assert "classes of test" not in format_details(lone)


def test_names_of_many_classes_are_cut_short(tmp_path):
    facts = save(tmp_path / "a.npz", X_train=[[1, 2]], y_train=[9], X_test=np.ones((5, 2)), y_test=range(5))
    assert format_details(facts).endswith("train does not have: 0, 1, 2 and 2 more")


def test_json_holds_everything(known, tmp_path):
    write_json([known], {"bad": "why"}, tmp_path / "facts.json")
    content = json.loads((tmp_path / "facts.json").read_text())
    assert content["refused"] == {"bad": "why"}
    assert content["total"]["sets"] == 1
    assert content["sets"][0]["splits"]["train"]["classes"] == {"2": 3, "10": 1}
    assert content["sets"][0]["splits"]["test"]["log_std"]["max"] == pytest.approx(2)
    with pytest.raises(InputError, match="cannot write"):
        write_json([known], {}, tmp_path / "nowhere" / "facts.json")


@pytest.mark.slow
def test_a_figure_is_drawn(tmp_path, known):
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra `report`")
    np.savez(tmp_path / "costs $ and $x_.npz", X_train=np.ones((30, 2, 5)), y_train=[f"$\\{i}" for i in range(30)])
    sets = find_datasets(str(tmp_path))
    for chosen in (sets[:1], sets[1:], sets):
        path = tmp_path / f"{len(chosen)}{chosen[0].name[0]}.png"
        plot_series(chosen, path)
        assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"cannot write .*a\.words"):
        plot_series(sets, tmp_path / "a.words")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["ucr", "uea", "train_only", "transfer"])
def test_sets_of_the_archives(pytestconfig, part):
    data = pytestconfig.rootpath.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the archives are not on this machine")
    for one in find_datasets(str(data / part)):
        facts = inspect_dataset(one)
        with np.load(one.train, allow_pickle=False) as file:
            for split, found in facts.splits.items():
                x = file[f"X_{split}"]
                labels, sizes = np.unique(file[f"y_{split}"], return_counts=True)
                assert found.cases * found.channels * x.shape[-1] * (1 - found.padding) == pytest.approx(found.values)
                assert found.values * (1 - found.missing) == pytest.approx((~np.isnan(x)).sum())
                assert found.classes == dict(zip(map(str, labels), sizes, strict=True))
                assert found.longest == max(np.flatnonzero(~np.isnan(case).all(0))[-1] + 1 for case in x)
                assert found.repeated == len(x) - len(np.unique(np.nan_to_num(x, nan=1e30), axis=0))
