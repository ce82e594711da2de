import csv
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import rankdata

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Failure, Result, read_failures, write_failures
from nutime_jax.report.contents import fetch_published, read_published
from nutime_jax.report.tables import (
    compare_columns,
    find_column,
    join_published,
    make_tables,
    rank_columns,
    write_summary,
)


def row(method, dataset, value, **changes):
    return Result(
        **{"method": method, "dataset": dataset, "protocol": "ridge", "setting": "", "seed": 0, "metric": "accuracy", "value": value}
        | changes
    )


def labels(table):
    return [column.label for column in table.columns]


@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])))
def test_ranks_share_ties(values):
    np.testing.assert_array_equal(rank_columns(values), rankdata(-values, axis=1))


def test_values_that_agree_to_four_decimals_are_ties():
    np.testing.assert_array_equal(rank_columns(np.array([[6 / 7, 0.8571, 0.85]])), [[1.5, 1.5, 3]])


def test_comparisons_are_over_the_datasets_that_all_methods_have():
    values = {"A": [0.9, 0.5, 0.7, 0.2], "B": [0.8, 0.5, 0.9, None], "C": [0.9, 0.6, 0.1, 1.0]}
    rows = [row(m, f"s{i}", v) for m, column in values.items() for i, v in enumerate(column) if v is not None]
    (table,) = make_tables(rows)
    assert table.common.tolist() == [True, True, True, False]
    a, b, c = compare_columns(table, 0)
    assert (a.datasets, b.datasets, c.datasets) == (4, 3, 4)
    assert a.mean == pytest.approx(2.1 / 3, abs=1e-12)
    assert a.mean_own == pytest.approx(2.3 / 4, abs=1e-12)
    ranks = [standing.rank for standing in (a, b, c)]
    assert ranks == pytest.approx([(1.5 + 2.5 + 2) / 3, (3 + 2.5 + 1) / 3, (1.5 + 1 + 3) / 3], abs=1e-12)
    assert (a.wins, a.ties, a.losses) == (0, 3, 0)
    assert (b.wins, b.ties, b.losses) == (1, 1, 1)
    assert (c.wins, c.ties, c.losses) == (1, 1, 1)


def test_without_a_common_set_there_are_no_ranks():
    (table,) = make_tables([row("A", "one", 0.5), row("B", "two", 0.6)])
    for standing, own in zip(compare_columns(table, 0), (0.5, 0.6), strict=True):
        assert math.isnan(standing.rank)
        assert math.isnan(standing.mean)
        assert standing.mean_own == own
        assert (standing.wins, standing.ties, standing.losses) == (0, 0, 0)


def test_one_method_on_one_set():
    (table,) = make_tables([row("A", "one", 0.5)])
    (standing,) = compare_columns(table, 0)
    assert (standing.datasets, standing.mean, standing.rank, standing.ties) == (1, 0.5, 1, 1)


def test_repetitions_are_averaged_and_seeds_without_effect_are_not_counted():
    rows = [row("moves", s, v, seed=i) for s, vs in {"x": (0.5, 0.6, 0.7), "y": (0.5, 0.5, 0.5)}.items() for i, v in enumerate(vs)]
    rows += [row("still", s, v, seed=i) for s, v in {"x": 0.4, "y": 0.8}.items() for i in range(3)]
    (table,) = make_tables(rows)
    np.testing.assert_allclose(table.means, [[0.6, 0.4], [0.5, 0.8]], atol=1e-12)
    np.testing.assert_array_equal(table.repetitions, [[3, 1], [3, 1]])
    np.testing.assert_allclose(table.deviations, [[0.1, np.nan], [0, np.nan]], atol=1e-12)


def test_splits_metrics_and_protocols_have_separate_tables():
    rows = [
        row("A", "x", 0.3, protocol="fewshot", setting="shots=5"),
        row("A", "x", 0.5, split="resample 1"),
        row("A", "x", 0.7, split="resample 2"),
        row("A", "x", 0.9, metric="f1"),
        row("A", "x", 0.8),
        row("A", "x", 0.1, protocol="clustering", metric="ari"),
    ]
    tables = make_tables(rows)
    assert [(t.task, t.metric, t.split) for t in tables] == [
        ("classification", "accuracy", "default"),
        ("classification", "accuracy", "resample"),
        ("classification", "f1", "default"),
        ("fewshot", "accuracy", "default"),
        ("clustering", "ari", "default"),
    ]
    assert tables[0].means == 0.8
    assert tables[1].means == pytest.approx(0.6, abs=1e-12)
    assert tables[1].repetitions == 2


def test_methods_chosen_on_the_test_split_have_a_separate_column():
    (table,) = make_tables([row("A", "x", 0.8), row("A", "x", 0.9, selection="test")])
    assert [(column.selection, column.label) for column in table.columns] == [("train", "A ridge by train"), ("test", "A ridge by test")]


def test_labels_are_the_shortest_that_distinguish_columns():
    settings = [
        ("A", "ridge", "layer=3 scaler=standard"),
        ("A", "ridge", "layer=4 scaler=standard"),
        ("A", "knn", "layer=3"),
        ("B", "knn", "x"),
    ]
    (table,) = make_tables([row(m, "one", 0.5, protocol=p, setting=s) for m, p, s in settings])
    assert labels(table) == ["A ridge layer=3", "A ridge layer=4", "A knn", "B"]


def test_datasets_are_in_natural_order():
    (table,) = make_tables([row("A", name, 0.5) for name in ("KPI10", "kpi2", "Beef", "KPI1", "2x", "²")])
    assert table.datasets == ("2x", "Beef", "KPI1", "kpi2", "KPI10", "²")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "contain no rows"),
        ([row("A", "x", math.nan)], "accuracy of A .ridge. on x is nan. A failed cell"),
        ([row("A", "x", math.inf, metric="f1")], "is inf"),
        ([row("A", "x", 84.0)], "is 84.0. Accuracies are fractions"),
        ([row("A", "x", 0.4, selection="best")], "selection 'best'"),
        ([row("A", "x", 0.4, split="")], "split ''"),
        ([row("A", "x", 0.4), row("A", "x", 0.5)], "on x has two values"),
    ],
)
def test_impossible_rows_are_rejected(rows, message):
    with pytest.raises(InputError, match=message):
        make_tables(rows)


def test_the_same_row_twice_is_one_row():
    (table,) = make_tables([row("A", "x", 0.4)] * 2)
    assert table.repetitions == 1


def test_columns_are_found_by_label_or_by_an_unambiguous_method():
    (table,) = make_tables([row("A", "x", 0.5), row("A", "x", 0.5, protocol="knn"), row("B", "x", 0.5)])
    assert [find_column(table, name) for name in ("A ridge", "A knn", "B")] == [0, 1, 2]
    with pytest.raises(InputError, match=r"Method 'A' names several columns\. Choose one of 'A ridge', 'A knn', 'B'"):
        find_column(table, "A")
    with pytest.raises(InputError, match="Method 'C' is not in the tables"):
        find_column(table, "C")


@pytest.mark.parametrize(("scale", "percent"), [(1, False), (100, True)])
def test_published_tables_are_joined_by_dataset(tmp_path, scale, percent):
    path = tmp_path / "paper.csv"
    path.write_text(f"problem,B,C\nx,{0.25 * scale},{0.5 * scale}\nmean rank,3.5,4\nelsewhere,900,text\ny,,{1.0 * scale}\n")
    published = read_published(str(path), ["x", "y", "z"])
    assert published.percent is percent
    assert published.values == {"B": {"x": 0.25}, "C": {"x": 0.5, "y": 1.0}}
    (table,) = make_tables([row("B", name, 0.3) for name in ("x", "y", "z")])
    joined = join_published(table, published.values)
    assert labels(joined) == ["B ridge", "B published", "C"]
    assert [column.published for column in joined.columns] == [False, True, True]
    np.testing.assert_array_equal(joined.means, [[0.3, 0.25, 0.5], [0.3, np.nan, 1.0], [0.3, np.nan, np.nan]])
    assert read_published(f"{path}:C", ["x"]).values == {"C": {"x": 0.5}}


@pytest.mark.parametrize(
    ("text", "argument", "message"),
    [
        (None, "none.csv", "is not readable as a published table"),
        ("", "paper.csv", "is not readable as a published table"),
        ("set\nx\n", "paper.csv", "has one column"),
        ("set,A\nq,1\n", "paper.csv", "has none of the evaluated datasets"),
        ("set,A\nx,1\nx,1\n", "paper.csv", "has two rows for dataset x"),
        ("set,archive,A\nx,ucr,1\n", "paper.csv", "archive of x is 'ucr', not a number. Select the methods, as in .*paper.csv:A"),
        ("set,n,A\nx,400,1\n", "paper.csv", "contains 400, which is not an accuracy"),
        ("set,A\nx,-1\n", "paper.csv", "contains -1, which is not an accuracy"),
        ("set,A\nx,1\n", "paper.csv:B", "has no method 'B'. It has A"),
    ],
)
def test_unusable_published_tables_are_rejected(tmp_path, text, argument, message):
    if text is not None:
        (tmp_path / "paper.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_published(str(tmp_path / argument), ["x"])


def test_published_methods_without_a_value_are_dropped(tmp_path):
    (tmp_path / "paper.csv").write_text("set,A,B\nx,,0.5\ny,0.5,\n")
    assert read_published(str(tmp_path / "paper.csv"), ["x"]).values == {"B": {"x": 0.5}}
    with pytest.raises(InputError, match="has no value for the evaluated datasets"):
        read_published(f"{tmp_path / 'paper.csv'}:A", ["x"])


@pytest.mark.parametrize(
    ("name", "message"), [("aeon:", "Write aeon:NAME"), ("HC2", "Write aeon:NAME"), ("aeon:Nothing", "Unknown estimator")]
)
def test_unknown_published_results_are_rejected(name, message):
    with pytest.raises(InputError, match=message):
        fetch_published(name, ["x"])


def test_published_results_are_fetched_online_and_rejected_offline(monkeypatch):
    from urllib.error import URLError

    from aeon.benchmarking import results_loaders

    monkeypatch.setattr(results_loaders, "get_estimator_results", lambda name, num_resamples: {name: {"x": 0.5, "other": 0.1}})
    assert fetch_published("aeon:hivecotev2", ["x", "y"]).values == {"HC2": {"x": 0.5}}
    with pytest.raises(InputError, match="none of the evaluated datasets"):
        fetch_published("aeon:HC2", ["y"])

    def fail(name, num_resamples):
        raise URLError("no route")

    monkeypatch.setattr(results_loaders, "get_estimator_results", fail)
    with pytest.raises(InputError, match=r"aeon:HC2 cannot be fetched .*Go online, or pass a file with --published_table"):
        fetch_published("aeon:HC2", ["x"])


def test_a_summary_has_one_line_per_table_and_column(tmp_path):
    tables = make_tables([row("A", "x", 0.5), row("B", "y", 0.25), row("A", "x", 0.125, metric="f1")])
    for _ in range(2):  # it may replace itself
        write_summary([(table, 0) for table in tables], tmp_path / "s.csv")
    with open(tmp_path / "s.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["metric"], line["label"], line["mean_own"], line["mean"], line["common_datasets"]) for line in lines] == [
        ("accuracy", "A", "0.5", "", "0"),
        ("accuracy", "B", "0.25", "", "0"),
        ("f1", "A", "0.125", "0.125", "1"),
    ]
    (tmp_path / "mine.csv").write_text("dataset,A\nx,0.5\n")
    with pytest.raises(InputError, match=r"The summary would replace .*mine.csv"):
        write_summary([(table, 0) for table in tables], tmp_path / "mine.csv")


def test_failures_come_back_as_they_were(tmp_path):
    failures = [Failure("A", "x, y", "ridge", "", 'said "no",\nand stopped'), Failure("B", "é", "knn", "k=1", "why")]
    write_failures(failures, tmp_path / "failures.csv")
    assert read_failures(tmp_path / "failures.csv") == failures
    (tmp_path / "wrong.csv").write_text("method,dataset\nA,x\n")
    with pytest.raises(InputError, match="not a table of failures: column protocol is missing"):
        read_failures(tmp_path / "wrong.csv")
    with pytest.raises(InputError, match="cannot be read as a table of failures"):
        read_failures(tmp_path / "none.csv")
