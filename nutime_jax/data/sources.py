"""Sources of a corpus: the entries of `data.sources`."""

import contextlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nutime_jax.data.columns import BY_NAME, Columns
from nutime_jax.data.datasets import BUNDLED, DatasetFiles, find_all_datasets
from nutime_jax.errors import InputError
from nutime_jax.storage import read_regular

log = logging.getLogger(__name__)

MAX_LICENCE_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """An entry of `data.sources`: a name, and the datasets whose train splits it adds."""

    name: str
    sets: tuple[DatasetFiles, ...]
    licence: str


def find_sources(sources: Iterable[str], *, exclude: Sequence[str] = (), columns: Columns = BY_NAME) -> list[Source]:
    """Return the datasets of `data.sources`; an entry is `name=location`, or a location that is named after its last part.

    Args:
        exclude: names of datasets to omit.
        columns: columns of tables, where their names do not give their role.

    Raises:
        InputError: see `datasets.find_datasets`; or no sources, two of one name, or a source without further datasets.
    """
    result: list[Source] = []
    seen: set[Path] = set()
    unused = set(exclude)
    for entry in filter(None, sources):
        named = re.fullmatch(r"([\w-]+)=(.+)", entry)
        name, where = named.groups() if named else (re.sub(r"[^\w-]", "_", Path(entry).expanduser().absolute().stem), entry)
        if name in [source.name for source in result]:
            raise InputError(f"two of data.sources are called {name}; name one otherwise: other_name={where}")
        sets = tuple(files for files in find_all_datasets([where], columns=columns) if files.train.absolute() not in seen)
        unused -= {files.name for files in sets}
        sets = tuple(files for files in sets if files.name not in exclude)
        if not sets:
            raise InputError(f"source {entry} adds nothing to the sources before it; leave it out")
        seen |= {files.train.absolute() for files in sets}
        result.append(Source(name, sets, _licence(where)))
    if not result:
        raise InputError("the corpus is empty: data.sources names nothing; give sets, files or folders, or 'bundled'")
    for name in sorted(unused):
        log.warning("data.exclude names %s, which is in no source", name)
    return result


def _licence(where: str) -> str:
    """Return the terms of a source: the text of its licence file, if it has one."""
    if where == "bundled" or where in BUNDLED:
        return "UCR and UEA archives (timeseriesclassification.com), as distributed with aeon; cite the archives in publications"
    path = Path(where).expanduser()
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.iterdir() if re.fullmatch(r"(licen[cs]e|copying|terms)(\.\w+)?", file.name, re.IGNORECASE))
    for file in files:
        with contextlib.suppress(OSError):  # a pipe, or a file of another kind
            return read_regular(file, max_bytes=MAX_LICENCE_BYTES).decode(errors="replace")
    return "not stated; ask where the files came from"
