"""Contents of a report: tables of results, published tables and lists of failures, read and joined."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nutime_jax.errors import InputError, extra
from nutime_jax.evaluation.results import FAILURES, Failure, Result, read_failures, read_rows
from nutime_jax.report.tables import SummaryTable, find_column, join_published, make_tables


@dataclass(frozen=True)
class Published:
    """Published accuracies, on default splits as far as the source says.

    source: file name, or the name of a fetched method.
    values: method -> dataset -> accuracy, as a fraction.
    percent: whether the source gives percent.
    """

    source: str
    values: dict[str, dict[str, float]]
    percent: bool = False


@dataclass(frozen=True)
class ReportContents:
    """Everything that a report shows.

    tables: each with the index of its reference column.
    sources: file names of the tables of results.
    failures: cells without a value; None if there is no list of failures.
    published: published tables, joined to the first table.
    rivals: columns of the first table that the reference is plotted against; empty for the two with the best ranks.
    """

    tables: Sequence[tuple[SummaryTable, int]]
    sources: Sequence[str] = ()
    failures: Sequence[Failure] | None = None
    published: Sequence[Published] = ()
    rivals: Sequence[int] = ()


def gather_contents(
    paths: Sequence[Path],
    *,
    published_tables: Sequence[str] = (),
    fetched: Sequence[str] = (),
    reference: str | None = None,
    rivals: Sequence[str] = (),
    only: Sequence[str] = (),
) -> ReportContents:
    """Read the contents of a report.

    Args:
        paths: tables of results, or folders with a results.csv or with the tables of all shards of a sweep.
        published_tables: see `read_published`.
        fetched: see `fetch_published`.
        reference: label or method that the others are compared with; by default the first that is not a baseline.
        rivals: labels or methods that the reference is plotted against.
        only: keep the rows whose method, protocol or setting contains one of these texts.

    Raises:
        InputError: a file is missing or malformed, or a method is unknown.
    """
    files = [file for path in paths for file in _find_results(path)]
    rows = [row for file in files for row in read_rows(file)]
    _check_names(rows)
    tables = make_tables(_select(rows, only))
    first = tables[0]
    published: list[Published] = []
    if published_tables or fetched:
        if (first.task, first.metric, first.split) != ("classification", "accuracy", "default"):
            raise InputError("The results contain no accuracies on default splits: there is nothing to compare published accuracies with.")
        published += [read_published(text, first.datasets) for text in published_tables]
        published += [fetch_published(text, first.datasets) for text in fetched]
        tables[0] = join_published(first, _merge(published))
    return ReportContents(
        tables=list(zip(tables, _find_references(tables, reference), strict=True)),
        sources=[file.name for file in files],
        failures=_find_failures(files),
        published=published,
        rivals=[find_column(tables[0], name) for name in rivals],
    )


def _check_names(rows: Iterable[Result]) -> None:
    """Raise InputError if two encoders have one name; repetitions of a sweep differ in their seeds."""
    first: dict[tuple, str] = {}
    for row in rows:
        other = first.setdefault((row.method, row.protocol, row.setting, row.seed), row.encoder)
        if other.rpartition("weights=")[2] != row.encoder.rpartition("weights=")[2]:
            raise InputError(
                f"Method {row.method!r} stands for two encoders ({other} and {row.encoder}). "
                f"Name one of them differently, as in nutime evaluate --encoder=NAME={row.encoder.split()[0]}"
            )


def _find_results(path: Path) -> list[Path]:
    """Return the tables of a folder (results.csv, or those of all shards of a sweep), or the path of a file."""
    if not path.is_dir():
        return [path]
    results, shards = path / "results.csv", sorted(path.glob("results_*_of_*.csv"))
    if results.exists() or not shards:
        return [results]
    names = [file.name for file in shards]
    if set(names) != {f"results_{index}_of_{len(names)}.csv" for index in range(len(names))}:
        raise InputError(f"{path} contains {', '.join(names)}, but not all shards of one sweep. Run the others, or name the tables.")
    return shards


def _select(rows: Sequence[Result], only: Sequence[str]) -> list[Result]:
    selected = [row for row in rows if not only or any(text in f"{row.method} {row.protocol} {row.setting}" for text in only)]
    if rows and not selected:
        methods = ", ".join(dict.fromkeys(row.method for row in rows))
        raise InputError(f"No row contains {' or '.join(map(repr, only))} in its method, protocol or setting. Methods: {methods}.")
    return selected


def _merge(published: Sequence[Published]) -> dict[str, dict[str, float]]:
    """Merge the methods of all tables; a name that occurs again gets its source appended."""
    merged: dict[str, dict[str, float]] = {}
    for table in published:
        merged |= {f"{name} ({table.source})" if name in merged else name: values for name, values in table.values.items()}
    return merged


def _find_references(tables: Sequence[SummaryTable], name: str | None) -> list[int]:
    """Return the index of the reference in each table; where it is missing, that of the first method that is not a baseline."""
    if name is not None:
        find_column(next((table for table in tables if _contains(table, name)), tables[0]), name)
    return [find_column(table, name) if name is not None and _contains(table, name) else _first_method(table) for table in tables]


def _contains(table: SummaryTable, name: str) -> bool:
    return any(name in (column.label, column.method) for column in table.columns)


def _first_method(table: SummaryTable) -> int:
    return next((j for j, column in enumerate(table.columns) if column.protocol not in ("baseline", "published")), 0)


def _find_failures(files: Sequence[Path]) -> list[Failure] | None:
    """Read the failures of every table and of its folder; None if there are no such files."""
    stem = Path(FAILURES).stem
    candidates = [file.with_name(file.name.replace("results", stem)) for file in files if file.name.startswith("results")]
    candidates += [file.parent / FAILURES for file in files]
    existing = [path for path in dict.fromkeys(candidates) if path.exists()]
    return [failure for path in existing for failure in read_failures(path)] if existing else None


def read_published(text: str, datasets: Iterable[str]) -> Published:
    """Read a CSV file with one row per dataset and one column per method.

    The first column names the dataset. Values are percent if any of them is above 1, else fractions. Methods without a value
    on the given datasets are dropped: they would leave nothing to compare on.

    Args:
        text: path of the file, optionally followed by `:method,method` to select methods.
        datasets: names of the datasets to read; other rows, such as a mean at the bottom, are skipped.

    Raises:
        InputError: the file cannot be read, has none of the datasets or methods, or contains values that are not accuracies.
    """
    path, methods = _split_methods(text)
    try:
        frame = pd.read_csv(path, dtype=str)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path} is not readable as a published table ({' '.join(str(error).split())}).") from error
    if len(frame.columns) < 2:
        raise InputError(f"{path} has one column. A published table has datasets in its first column and methods in the others.")
    frame = frame.set_index(frame.columns[0])
    for method in methods:
        if method not in frame.columns:
            raise InputError(f"{path} has no method {method!r}. It has {', '.join(frame.columns)}.")
    frame = frame.loc[frame.index.isin(list(datasets)), methods or list(frame.columns)]
    if frame.empty:
        raise InputError(f"{path} has none of the evaluated datasets. Its first column must name them as the results do.")
    if frame.index.has_duplicates:
        raise InputError(f"{path} has two rows for dataset {frame.index[frame.index.duplicated()][0]}. Keep one of them.")
    published = Published(path.name, *_to_fractions(frame, path))
    if not published.values:
        raise InputError(f"{path} has no value for the evaluated datasets. Remove it from the command.")
    return published


def _split_methods(text: str) -> tuple[Path, list[str]]:
    """Split `file.csv:A,B` into the path and the methods."""
    path, colon, methods = text.rpartition(":")
    if not colon or Path(text).expanduser().exists():
        path, methods = text, ""
    return Path(path).expanduser(), [name.strip() for name in methods.split(",") if name.strip()]


def _to_fractions(frame: pd.DataFrame, path: Path) -> tuple[dict[str, dict[str, float]], bool]:
    """Return method -> dataset -> accuracy as a fraction, and whether the table is in percent."""
    values = frame.apply(pd.to_numeric, errors="coerce")
    advice = f"Select the methods, as in {path}:{frame.columns[-1]}."
    for row, column in np.argwhere((values.isna() & frame.notna()).to_numpy()):
        raise InputError(f"{path}: {frame.columns[column]} of {frame.index[row]} is {frame.iat[row, column]!r}, not a number. {advice}")
    known = values.stack().dropna()
    low, high = (0.0, 0.0) if known.empty else (known.min(), known.max())
    if low < 0 or high > 100:
        raise InputError(f"{path} contains {low if low < 0 else high}, which is not an accuracy. {advice}")
    values = values / 100 if high > 1 else values
    methods = {str(method): values[method].dropna().to_dict() for method in values}
    return {method: by_dataset for method, by_dataset in methods.items() if by_dataset}, bool(high > 1)


def fetch_published(name: str, datasets: Iterable[str]) -> Published:
    """Fetch accuracies of one method on default splits from timeseriesclassification.com, through aeon.

    Args:
        name: "aeon:HC2"; aeon.benchmarking.results_loaders.NAME_ALIASES lists the methods.

    Raises:
        InputError: the source or method is unknown, or the site cannot be reached.
    """
    with extra("aeon"):
        from aeon.benchmarking.results_loaders import CONNECTION_ERRORS, estimator_alias, get_estimator_results

    source, _, method = name.partition(":")
    if source != "aeon" or not method:
        raise InputError(f"Published results {name!r} are unknown. Write aeon:NAME, for example aeon:HC2.")
    try:
        method = estimator_alias(method)
        values = get_estimator_results(method, num_resamples=1)[method]
    except CONNECTION_ERRORS as error:
        raise InputError(
            f"{name} cannot be fetched from timeseriesclassification.com ({error}). Go online, or pass a file with --published_table."
        ) from error
    except ValueError as error:
        raise InputError(f"{name} cannot be fetched ({' '.join(str(error).split())}).") from error
    values = {dataset: float(values[dataset]) for dataset in datasets if dataset in values}
    if not values:
        raise InputError(f"{name} has none of the evaluated datasets.")
    return Published(name, {method: values})
