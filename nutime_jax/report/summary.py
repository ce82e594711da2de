"""Numbers of a report: tables of sets × methods, and how the methods compare on the sets that all of them have."""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Row
from nutime_jax.storage import open_atomically

APART = ("fewshot", "clustering", "anomaly", "point_anomaly")
"""Protocols that ask another question than "which class?", each with tables of its own; all others are classifiers."""

SUPPORTING = ("std", "stderr", "outliers", "anomalies", "train_cv", "validation_accuracy")
"""Metrics that say how to take another, or what a choice was made by; they stay in the table of results."""

DECIMALS = 4
"""Values that agree to so many decimals are ties: published tables give no more."""


@dataclass(frozen=True)
class Column:
    """One method as it was run.

    label: the fewest words that tell it from the other columns of its table.
    selection: "test" if the test split made a choice.
    published: whether the numbers come from a table of others rather than from a run on these files.
    """

    method: str
    protocol: str
    setting: str
    selection: str = "train"
    published: bool = False
    label: str = ""


@dataclass(frozen=True)
class Table:
    """One metric of one protocol on one kind of split; NaN where a method was not run on a set.

    family: "classification", or one of APART.
    split: "default" or "resample".
    means: mean over repetitions, shape (sets, columns).
    deviations: their standard deviation (ddof 1); NaN where there is one repetition.
    repetitions: their number; seeds that change nothing on any set are one repetition.
    """

    family: str
    metric: str
    split: str
    sets: tuple[str, ...]
    columns: tuple[Column, ...]
    means: np.ndarray
    deviations: np.ndarray
    repetitions: np.ndarray

    @property
    def common(self) -> np.ndarray:
        """Which sets all columns have, shape (sets,)."""
        return ~np.isnan(self.means).any(1)


@dataclass(frozen=True)
class Standing:
    """How a column does: on all sets it has, and beside the other columns on the sets that all have.

    mean_own: mean over the `sets` sets it has; comparable between columns only if they have the same sets.
    mean, rank: mean value and mean rank (1 is best, ties share) over the common sets; NaN if there are none.
    wins, ties, losses: common sets on which it is above, level with and below the reference.
    """

    column: Column
    sets: int
    mean_own: float
    mean: float
    rank: float
    wins: int
    ties: int
    losses: int


def make_tables(rows: Iterable[Row]) -> list[Table]:
    """One table a family of protocols, metric and kind of split: accuracy on default splits first, others as they come.

    Raises:
        InputError: there are no rows, a value is impossible, or a cell has two values.
    """
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        _check(row)
        if row.metric in SUPPORTING:
            continue
        family = row.protocol if row.protocol in APART else "classification"
        groups[family, row.metric, row.split.split()[0]].append(row)
    if not groups:
        raise InputError("the tables of results hold no rows; run an evaluation first")
    order = sorted(groups, key=lambda key: (key[0] != "classification", key[1] != "accuracy", key[2] != "default"))
    return [_make_table(key, groups[key]) for key in order]


def _check(row: Row) -> None:
    where = f"{row.metric} of {row.method} ({row.protocol}) on {row.dataset}"
    if not math.isfinite(row.value):
        raise InputError(f"{where} is {row.value}; a cell that failed belongs in failures.csv, not among the results")
    if row.metric == "accuracy" and not 0 <= row.value <= 1:
        raise InputError(f"{where} is {row.value}; accuracies are shares from 0 to 1")
    if row.selection not in ("train", "test"):
        raise InputError(f"{where} has selection {row.selection!r}; it is train or test")
    if row.split.split()[:1] not in (["default"], ["resample"]):
        raise InputError(f"{where} has split {row.split!r}; it is default, or resample and a number")


def _make_table(key: tuple[str, str, str], rows: Sequence[Row]) -> Table:
    cells: dict[Column, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        cell = cells[Column(row.method, row.protocol, row.setting, row.selection)][row.dataset]
        if cell.setdefault((row.split, row.seed), row.value) != row.value:
            raise InputError(
                f"{row.metric} of {row.method} ({row.protocol} {row.setting}, seed {row.seed}) on {row.dataset} has two values; "
                f"give one table, or rename the method in the other"
            )
    names = tuple(sorted({row.dataset for row in rows}, key=_natural))
    shape = len(names), len(cells)
    means, deviations, counts = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int)
    for j, column in enumerate(cells.values()):
        repeated = any(len(set(cell.values())) > 1 for cell in column.values())
        for i, name in enumerate(names):
            if values := list(column.get(name, {}).values()):
                means[i, j], counts[i, j] = np.mean(values), len(values) if repeated else 1
                deviations[i, j] = np.std(values, ddof=1) if counts[i, j] > 1 else np.nan
    return Table(*key, names, label_columns(tuple(cells)), means, deviations, counts)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts KPI2 before KPI10, and without regard to case."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def label_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """The same columns, each labelled by the fewest words that tell it from the others."""
    labels = [column.method for column in columns]
    for more in (lambda c: c.protocol, lambda c: _differing_words(c, columns), lambda c: c.setting, lambda c: f"by {c.selection}"):
        labels = [f"{label} {more(c)}" if labels.count(label) > 1 else label for label, c in zip(labels, columns, strict=True)]
    return tuple(replace(column, label=" ".join(label.split())) for column, label in zip(columns, labels, strict=True))


def _differing_words(column: Column, columns: Sequence[Column]) -> str:
    """The words of a setting that not every column of its method and protocol has."""
    peers = [c.setting.split() for c in columns if (c.method, c.protocol) == (column.method, column.protocol)]
    return " ".join(word for word in column.setting.split() if not all(word in peer for peer in peers))


def join_published(table: Table, published: Mapping[str, Mapping[str, float]]) -> Table:
    """The table with columns of others beside it, on the sets that it has.

    Args:
        published: name of a method -> set -> value.
    """
    extra = np.array([[values.get(name, np.nan) for values in published.values()] for name in table.sets])
    extra = extra.reshape(len(table.sets), len(published))
    columns = label_columns((*table.columns, *(Column(name, "published", "", published=True) for name in published)))
    return replace(
        table,
        columns=columns,
        means=np.hstack([table.means, extra]),
        deviations=np.hstack([table.deviations, np.full_like(extra, np.nan)]),
        repetitions=np.hstack([table.repetitions, (~np.isnan(extra)).astype(int)]),
    )


def find_column(table: Table, name: str) -> int:
    """Index of the column with this label, or of the only one of this method.

    Raises:
        InputError: there is none, or several.
    """
    for names in ([c.label for c in table.columns], [c.method for c in table.columns]):
        if names.count(name) == 1:
            return names.index(name)
    labels = ", ".join(repr(c.label) for c in table.columns)
    known = name in [c.method for c in table.columns]
    raise InputError(f"method {name!r} {'names several columns' if known else 'is in no table'}; choose one of {labels}")


def rank_columns(values: np.ndarray) -> np.ndarray:
    """Rank of each column on each set: 1 is the highest value, ties share the mean of their ranks; (sets, columns)."""
    values = values.round(DECIMALS)
    above = (values[:, None, :] > values[:, :, None]).sum(-1)
    level = (values[:, None, :] == values[:, :, None]).sum(-1)
    return 1 + above + (level - 1) / 2


def compare_columns(table: Table, reference: int) -> list[Standing]:
    """Standing of every column, in the order of the table."""
    values = table.means[table.common].round(DECIMALS)
    empty = not len(values)
    means = np.full(len(table.columns), np.nan) if empty else table.means[table.common].mean(0)
    ranks = np.full(len(table.columns), np.nan) if empty else rank_columns(values).mean(0)
    signs = np.sign(values - values[:, [reference]])
    return [
        Standing(
            column=column,
            sets=int((~np.isnan(table.means[:, j])).sum()),
            mean_own=float(np.nanmean(table.means[:, j])) if not np.isnan(table.means[:, j]).all() else math.nan,
            mean=float(means[j]),
            rank=float(ranks[j]),
            wins=int((signs[:, j] > 0).sum()),
            ties=int((signs[:, j] == 0).sum()),
            losses=int((signs[:, j] < 0).sum()),
        )
        for j, column in enumerate(table.columns)
    ]


def write_summary(tables: Sequence[tuple[Table, int]], path: Path) -> None:
    """Writes a line a table and column as CSV, replacing the file in one move; empty where there is no number.

    Args:
        tables: each with the index of its reference.

    Raises:
        InputError: another kind of table stands there.
    """
    about, numbers = [field.name for field in fields(Column)], [field.name for field in fields(Standing)][1:]
    header = ["family", "metric", "split", *about, *numbers, "common_sets", "reference"]
    if path.exists() and path.read_bytes()[:2000].split(b"\n")[0].strip() != ",".join(header).encode():
        raise InputError(f"the summary would replace {path}, which is none; choose another --out")
    with open_atomically(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for table, reference in tables:
            common, name = int(table.common.sum()), table.columns[reference].label
            for standing in compare_columns(table, reference):
                values = ["" if value != value else value for value in (getattr(standing, number) for number in numbers)]
                writer.writerow([table.family, table.metric, table.split, *astuple(standing.column), *values, common, name])
