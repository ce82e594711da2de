"""Tables of datasets × methods, and comparisons of the methods on the datasets that all of them have."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Result
from nutime_jax.storage import open_atomically

OTHER_TASKS = ("fewshot", "clustering", "anomaly", "point_anomaly")
"""Protocols with separate tables; all others are classification."""

AUXILIARY_METRICS = ("std", "stderr", "outliers", "anomalies", "train_cv", "validation_accuracy")
"""Metrics that qualify another metric, or that a choice was made by; a report does not show them."""

DECIMALS = 4
"""Values that agree to this number of decimals are ties: published tables give no more."""


@dataclass(frozen=True)
class Column:
    """One method with its settings.

    label: the shortest text that distinguishes it from the other columns of its table.
    selection: "test" if the test split made a choice, else "train".
    published: whether the values come from a published table rather than from a run.
    encoder: origin of the encoder, see `Result.encoder`; empty for a baseline.
    """

    method: str
    protocol: str
    setting: str
    selection: str = "train"
    published: bool = False
    label: str = ""
    encoder: str = ""


@dataclass(frozen=True)
class SummaryTable:
    """One metric of one task on one kind of split; NaN where a method has no value for a dataset.

    task: "classification", or one of OTHER_TASKS.
    split: "default" or "resample".
    datasets: names, in natural order.
    means: means over repetitions, shape (datasets, columns).
    deviations: standard deviations over repetitions (ddof 1); NaN for a single repetition.
    repetitions: their number; seeds that change no value on any dataset are one repetition.
    """

    task: str
    metric: str
    split: str
    datasets: tuple[str, ...]
    columns: tuple[Column, ...]
    means: np.ndarray
    deviations: np.ndarray
    repetitions: np.ndarray

    @property
    def common(self) -> np.ndarray:
        """Whether all columns have a value for a dataset, shape (datasets,)."""
        return ~np.isnan(self.means).any(1)


@dataclass(frozen=True)
class Standing:
    """One column compared with the others.

    datasets: number of datasets with a value.
    mean_own: mean over these; comparable only between columns with the same datasets.
    mean, rank: mean value and mean rank (1 is best, ties share) over the common datasets; NaN without common datasets.
    wins, ties, losses: common datasets on which it is better than, equal to and worse than the reference.
    gap: mean difference from the reference over the common datasets. interval: half the width of its 95 % confidence interval,
        by Student's t. p_value: of the two-sided Wilcoxon signed-rank test. NaN for the reference, and where undefined.
    """

    column: Column
    datasets: int
    mean_own: float
    mean: float
    rank: float
    wins: int
    ties: int
    losses: int
    gap: float
    interval: float
    p_value: float


def make_tables(rows: Iterable[Result]) -> list[SummaryTable]:
    """Return one table per task, metric and kind of split: accuracy on default splits first, others in order of appearance.

    Raises:
        InputError: there are no rows, a value is out of range, or a cell has two values.
    """
    rows = list(rows)
    for row in rows:
        _check(row)
    frame = pd.DataFrame([vars(row) for row in rows if row.metric not in AUXILIARY_METRICS])
    if frame.empty:
        raise InputError("The tables of results contain no rows. Run an evaluation first.")
    frame["task"] = frame.protocol.where(frame.protocol.isin(OTHER_TASKS), "classification")
    frame["kind"] = frame.split.str.split().str[0]
    groups = dict(iter(frame.groupby(["task", "metric", "kind"], sort=False)))
    order = sorted(groups, key=lambda key: (key[0] != "classification", key[1] != "accuracy", key[2] != "default"))
    return [_make_table(*key, groups[key]) for key in order]


def _check(row: Result) -> None:
    value = f"{row.metric} of {row.method} ({row.protocol}) on {row.dataset}"
    if not math.isfinite(row.value):
        raise InputError(f"{value} is {row.value}. A failed cell belongs in failures.csv, not in the results.")
    if row.metric == "accuracy" and not 0 <= row.value <= 1:
        raise InputError(f"{value} is {row.value}. Accuracies are fractions from 0 to 1.")
    if row.selection not in ("train", "test"):
        raise InputError(f"{value} has selection {row.selection!r}. It must be train or test.")
    if row.split.split()[:1] not in (["default"], ["resample"]):
        raise InputError(f"{value} has split {row.split!r}. It must be default, or resample and a number.")


def _make_table(task: str, metric: str, split: str, frame: pd.DataFrame) -> SummaryTable:
    names = ["method", "protocol", "setting", "selection"]
    run = [*names, "dataset", "split", "seed"]
    frame = frame.drop_duplicates([*run, "value"])
    for row in frame[frame.duplicated(run)].itertuples():
        raise InputError(
            f"{metric} of {row.method} ({row.protocol} {row.setting}, seed {row.seed}) on {row.dataset} has two values. "
            "Pass one table, or rename the method in the other."
        )
    datasets = tuple(sorted(frame.dataset.unique(), key=_natural_key))
    columns, means, deviations, repetitions = [], [], [], []
    for key, rows in frame.groupby(names, sort=False):
        values = {name: group.to_numpy() for name, group in rows.groupby("dataset")["value"]}
        seeds_matter = any(len(set(repeated)) > 1 for repeated in values.values())
        counts = {name: len(repeated) if seeds_matter else 1 for name, repeated in values.items()}
        columns.append(Column(*key, encoder=rows.encoder.iloc[0]))
        means.append([values[name].mean() if name in values else np.nan for name in datasets])
        deviations.append([values[name].std(ddof=1) if counts.get(name, 0) > 1 else np.nan for name in datasets])
        repetitions.append([counts.get(name, 0) for name in datasets])
    arrays = [np.transpose(array) for array in (means, deviations, repetitions)]
    return SummaryTable(task, metric, split, datasets, label_columns(columns), *arrays)


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Sort KPI2 before KPI10, without regard to case."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def label_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Label each column by its method, and by as much of its settings as distinguishes it.

    Methods A and A with protocols ridge and knn become "A ridge" and "A knn"; next come the words of the setting that not all
    columns of this method and protocol have, then the whole setting, then the selection.
    """
    labels = [column.method for column in columns]
    for describe in (_protocol, _differing_words, _setting, _selection):
        ambiguous = [labels.count(label) > 1 for label in labels]
        labels = [
            f"{label} {describe(column, columns)}" if again else label
            for label, column, again in zip(labels, columns, ambiguous, strict=True)
        ]
    return tuple(replace(column, label=" ".join(label.split())) for column, label in zip(columns, labels, strict=True))


def _protocol(column: Column, columns: Sequence[Column]) -> str:
    return column.protocol


def _differing_words(column: Column, columns: Sequence[Column]) -> str:
    peers = [other.setting.split() for other in columns if (other.method, other.protocol) == (column.method, column.protocol)]
    return " ".join(word for word in column.setting.split() if not all(word in peer for peer in peers))


def _setting(column: Column, columns: Sequence[Column]) -> str:
    return column.setting


def _selection(column: Column, columns: Sequence[Column]) -> str:
    return f"by {column.selection}"


def join_published(table: SummaryTable, published: Mapping[str, Mapping[str, float]]) -> SummaryTable:
    """Return the table with more columns of published values.

    Args:
        published: method -> dataset -> value.
    """
    values = pd.DataFrame(published, index=list(table.datasets), columns=list(published), dtype=float).to_numpy()
    columns = (*table.columns, *(Column(name, "published", "", published=True) for name in published))
    return replace(
        table,
        columns=label_columns(columns),
        means=np.hstack([table.means, values]),
        deviations=np.hstack([table.deviations, np.full_like(values, np.nan)]),
        repetitions=np.hstack([table.repetitions, (~np.isnan(values)).astype(int)]),
    )


def find_column(table: SummaryTable, name: str) -> int:
    """Return the index of the column with this label, or of the only column of this method.

    Raises:
        InputError: no column or several columns match.
    """
    labels, methods = [column.label for column in table.columns], [column.method for column in table.columns]
    for names in (labels, methods):
        if names.count(name) == 1:
            return names.index(name)
    problem = "names several columns" if name in methods else "is not in the tables"
    raise InputError(f"Method {name!r} {problem}. Choose one of {', '.join(map(repr, labels))}.")


def rank_columns(values: np.ndarray) -> np.ndarray:
    """Return the rank of each column on each dataset, shape (datasets, columns): 1 is the highest value, ties share the mean rank."""
    return pd.DataFrame(values.round(DECIMALS)).rank(axis=1, ascending=False).to_numpy()


def compare_columns(table: SummaryTable, reference: int) -> list[Standing]:
    """Return the standing of every column, in the order of the table."""
    values = table.means[table.common]
    means, ranks = (array.mean(0) if len(values) else np.full(len(table.columns), np.nan) for array in (values, rank_columns(values)))
    signs = np.sign(values.round(DECIMALS) - values.round(DECIMALS)[:, [reference]])
    counts = (~np.isnan(table.means)).sum(0)
    return [
        Standing(
            column=column,
            datasets=int(counts[j]),
            mean_own=float(np.nanmean(table.means[:, j])) if counts[j] else math.nan,
            mean=float(means[j]),
            rank=float(ranks[j]),
            wins=int((signs[:, j] > 0).sum()),
            ties=int((signs[:, j] == 0).sum()),
            losses=int((signs[:, j] < 0).sum()),
            **({"gap": math.nan, "interval": math.nan, "p_value": math.nan} if j == reference else _compare_pair(values, j, reference)),
        )
        for j, column in enumerate(table.columns)
    ]


def _compare_pair(values: np.ndarray, column: int, reference: int) -> dict[str, float]:
    """Return gap, interval and p_value of a `Standing`."""
    gaps = values[:, column] - values[:, reference]
    count, rounded = len(gaps), gaps.round(DECIMALS)
    gap = float(gaps.mean()) if count else math.nan
    interval = float(stats.t.ppf(0.975, count - 1) * gaps.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    p_value = float(stats.wilcoxon(rounded).pvalue) if count > 1 and rounded.any() else math.nan
    return {"gap": gap, "interval": interval, "p_value": p_value}


def write_summary(tables: Sequence[tuple[SummaryTable, int]], path: Path) -> None:
    """Write one line per table and column as CSV, atomically; an empty field is NaN.

    Args:
        tables: each with the index of its reference column.

    Raises:
        InputError: the file exists and is not a summary.
    """
    statistics = [field.name for field in fields(Standing)][1:]
    header = ["task", "metric", "split", *(field.name for field in fields(Column)), *statistics, "common_datasets", "reference"]
    if path.exists() and path.read_bytes()[:2000].split(b"\n")[0].strip() != ",".join(header).encode():
        raise InputError(f"The summary would replace {path}, which is not a summary. Choose another --out.")
    lines = []
    for table, reference in tables:
        about = {"task": table.task, "metric": table.metric, "split": table.split}
        about |= {"common_datasets": int(table.common.sum()), "reference": table.columns[reference].label}
        lines += [about | asdict(standing.column) | asdict(standing) for standing in compare_columns(table, reference)]
    with open_atomically(path, "w", newline="", encoding="utf-8") as file:
        pd.DataFrame(lines, columns=header).to_csv(file, index=False, lineterminator="\r\n")
