"""Numbers of others: tables from papers that a user names, and the results that aeon's loader fetches."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nutime_jax.errors import InputError


@dataclass(frozen=True)
class Published:
    """Accuracies from elsewhere, on the default split as far as their source says.

    source: where they come from.
    values: method -> set -> share.
    percent: whether the source gives percent.
    """

    source: str
    values: dict[str, dict[str, float]]
    percent: bool = False


def read_published(text: str, sets: Iterable[str]) -> Published:
    """Reads a CSV file whose first column is the set and whose others are methods, for these sets.

    Values are percent if any of them is above 1, else shares. Methods without a value on these sets are left out: they would
    leave nothing to compare on.

    Args:
        text: path of the file, with `:method,method` after it to take these alone.
        sets: names of the sets to read; other lines, such as a mean at the bottom, are left out.

    Raises:
        InputError: the file cannot be read, has none of the sets or methods, or holds values that are no accuracies.
    """
    import pandas

    path, methods = _split(text)
    try:
        frame = pandas.read_csv(path, dtype=str)
    except (OSError, UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise InputError(f"{path} cannot be read as a published table ({' '.join(str(error).split())})") from error
    if len(frame.columns) < 2:
        raise InputError(f"{path} has one column; a published table names the set in its first column and methods in the others")
    frame = frame.set_index(frame.columns[0])
    if unknown := [name for name in methods if name not in frame.columns]:
        raise InputError(f"{path} has no method {unknown[0]!r}; it has {', '.join(frame.columns)}")
    frame = frame.loc[frame.index.isin(list(sets)), list(methods) or list(frame.columns)]
    if not len(frame):
        raise InputError(f"{path} has none of the evaluated sets; its first column must name them as the results do")
    if frame.index.has_duplicates:
        raise InputError(f"{path} has two lines for set {frame.index[frame.index.duplicated()][0]}; keep one")
    published = Published(path.name, *_shares(frame, path))
    if not published.values:
        raise InputError(f"{path} has no value for any of the evaluated sets; leave it out")
    return published


def _split(text: str) -> tuple[Path, list[str]]:
    """`file.csv:A,B` -> the path, and the methods to take."""
    path, colon, methods = text.rpartition(":")
    if not colon or Path(text).expanduser().exists():
        path, methods = text, ""
    return Path(path).expanduser(), [name.strip() for name in methods.split(",") if name.strip()]


def _shares(frame, path: Path) -> tuple[dict[str, dict[str, float]], bool]:
    import pandas

    numbers = frame.apply(pandas.to_numeric, errors="coerce")
    wrong = np.argwhere((numbers.isna() & frame.notna()).to_numpy())
    if len(wrong):
        row, column = wrong[0]
        method, example = frame.columns[column], frame.columns[-1]
        raise InputError(
            f"{path}: {method} of {frame.index[row]} is {frame.iat[row, column]!r}, no number; name the methods, as in {path}:{example}"
        )
    values = numbers.to_numpy(np.float64)
    low, high = values[~np.isnan(values)].min(initial=0), values[~np.isnan(values)].max(initial=0)
    if low < 0 or high > 100:
        raise InputError(f"{path} holds {low if low < 0 else high}, no accuracy; name the methods, as in {path}:{frame.columns[-1]}")
    numbers = numbers / 100 if high > 1 else numbers
    shares = {str(method): numbers[method].dropna().to_dict() for method in numbers}
    return {method: known for method, known in shares.items() if known}, bool(high > 1)


def fetch_published(name: str, sets: Iterable[str]) -> Published:
    """Accuracies of one method on the default splits, from timeseriesclassification.com through aeon's loader.

    Args:
        name: "aeon:HC2"; see aeon.benchmarking.results_loaders.NAME_ALIASES for those there are.

    Raises:
        InputError: the source or method is unknown, or the site cannot be reached.
    """
    from aeon.benchmarking.results_loaders import CONNECTION_ERRORS, estimator_alias, get_estimator_results

    source, _, method = name.partition(":")
    if source != "aeon" or not method:
        raise InputError(f"published results {name!r} are unknown; write aeon:NAME, for instance aeon:HC2")
    try:
        method = estimator_alias(method)
        values = get_estimator_results(method, num_resamples=1)[method]
    except CONNECTION_ERRORS as error:
        raise InputError(
            f"{name} cannot be fetched from timeseriesclassification.com ({error}); go online, or name a file with --published_table"
        ) from error
    except ValueError as error:
        raise InputError(f"{name} cannot be used ({' '.join(str(error).split())})") from error
    values = {one: float(values[one]) for one in sets if one in values}
    if not values:
        raise InputError(f"{name} has none of the evaluated sets")
    return Published(name, {method: values})
