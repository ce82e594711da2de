"""What a report shows, gathered from tables of results, published tables and lists of failures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import FAILURES, Failure, Row, read_failures, read_rows
from nutime_jax.report.published import Published, fetch_published, read_published
from nutime_jax.report.summary import Table, find_column, join_published, make_tables


@dataclass(frozen=True)
class Contents:
    """What a report shows.

    tables: each with the index of the column that the others are compared with.
    sources: names of the tables of results.
    failures: cells without a number; None where no list of them was found.
    published: tables of others that were joined to the first table.
    rivals: columns that the reference is drawn against in the first table; empty for the two best ranked.
    """

    tables: Sequence[tuple[Table, int]]
    sources: Sequence[str] = ()
    failures: Sequence[Failure] | None = None
    published: Sequence[Published] = ()
    rivals: Sequence[int] = ()


def gather_contents(
    paths: Sequence[Path],
    *,
    baselines: Sequence[str] = (),
    fetched: Sequence[str] = (),
    reference: str | None = None,
    rivals: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Contents:
    """Reads everything that a report shows.

    Args:
        paths: tables of results, or folders with a results.csv, or with those of all shards of a sweep.
        baselines: published tables, see `published.read_published`.
        fetched: published results on the web, see `published.fetch_published`.
        reference: label or method that the others are compared with; by default the first that is no baseline.
        rivals: labels or methods that it is drawn against.
        only: keep rows whose method, protocol or setting has one of these texts in it.

    Raises:
        InputError: a file cannot be read or does not hold what it should, or a method is unknown.
    """
    files = [file for path in paths for file in _tables_of(path)]
    rows = _select([row for file in files for row in read_rows(file)], only)
    tables = make_tables(rows)
    published = []
    if baselines or fetched:
        first = tables[0]
        if (first.family, first.metric, first.split) != ("classification", "accuracy", "default"):
            raise InputError("published accuracies need accuracies on default splits to stand beside; the results hold none")
        published = [read_published(text, first.sets) for text in baselines] + [fetch_published(text, first.sets) for text in fetched]
        tables[0] = join_published(first, _merge(published))
    return Contents(
        list(zip(tables, _find_references(tables, reference), strict=True)),
        [file.name for file in files],
        _find_failures(files),
        published,
        [find_column(tables[0], name) for name in rivals],
    )


def _tables_of(path: Path) -> list[Path]:
    """The tables of a folder: results.csv, or those of all shards of a sweep where there is none; a path to a file is its own."""
    if not path.is_dir():
        return [path]
    whole, shards = path / "results.csv", sorted(path.glob("results_*_of_*.csv"))
    if whole.exists() or not shards:
        return [whole]
    names = [file.name for file in shards]
    if set(names) != {f"results_{index}_of_{len(names)}.csv" for index in range(len(names))}:
        raise InputError(
            f"{path} holds {', '.join(names)}, which are not all shards of one sweep; run the others, or name the tables one by one"
        )
    return shards


def _select(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    kept = [row for row in rows if not only or any(text in f"{row.method} {row.protocol} {row.setting}" for text in only)]
    if rows and not kept:
        methods = ", ".join(dict.fromkeys(row.method for row in rows))
        raise InputError(f"no row has {' or '.join(map(repr, only))} in its method, protocol or setting; methods are {methods}")
    return kept


def _merge(published: Sequence[Published]) -> dict[str, dict[str, float]]:
    """All methods under names of their own: of two tables that have one, the second's source goes with the name."""
    merged: dict[str, dict[str, float]] = {}
    for one in published:
        merged |= {f"{name} ({one.source})" if name in merged else name: values for name, values in one.values.items()}
    return merged


def _find_references(tables: Sequence[Table], name: str | None) -> list[int]:
    """Index of the reference in each table; where a table does not have it, that of its first method that is no baseline."""
    if name is not None:
        find_column(next((table for table in tables if _has(table, name)), tables[0]), name)
    return [find_column(table, name) if name is not None and _has(table, name) else _first(table) for table in tables]


def _has(table: Table, name: str) -> bool:
    return any(name in (column.label, column.method) for column in table.columns)


def _first(table: Table) -> int:
    own = [j for j, column in enumerate(table.columns) if column.protocol not in ("baseline", "published")]
    return own[0] if own else 0


def _find_failures(files: Sequence[Path]) -> list[Failure] | None:
    beside = [file.with_name(file.name.replace("results", Path(FAILURES).stem)) for file in files if file.name.startswith("results")]
    lists = [path for path in dict.fromkeys([*beside, *(file.parent / FAILURES for file in files)]) if path.exists()]
    return [failure for path in lists for failure in read_failures(path)] if lists else None
