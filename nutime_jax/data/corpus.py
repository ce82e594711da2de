"""Pretraining corpora: train splits of datasets, one series per channel, one TFDS part (ArrayRecord) per source."""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.data.columns import BY_NAME, Columns
from nutime_jax.data.datasets import DatasetFiles
from nutime_jax.data.series import centre_to_float32, split_long_series
from nutime_jax.data.sources import Source, find_sources
from nutime_jax.errors import InputError, extra
from nutime_jax.progress import ProgressBar
from nutime_jax.storage import check_regular

with extra("train"):
    import tensorflow_datasets as tfds

log = logging.getLogger(__name__)

SHARD_BYTES = 64 << 20
"""Size of the files of the datasets in a shard; a build holds one shard in memory."""

MAX_CARD_BYTES = 1 << 28

PACKAGES = ("numpy", "tensorflow-datasets", "array-record", "aeon")


class CorpusRecord(NamedTuple):
    """A series as `series.centre_to_float32` splits it: `values` (time,) plus `offset`."""

    values: np.ndarray
    offset: np.float32


@dataclass(frozen=True)
class Part:
    """A built source.

    records: random access to examples {"record": (1 + time,) float32}, serialised: the offset and then the values, in one
        feature, because the byte order of several is not fixed. The records of a class are contiguous.
    card: datasets, classes with their sizes, longest series, digest, checksums, licence, versions.
    """

    name: str
    records: Any
    card: dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """An open corpus: the concatenated records of its parts."""

    parts: tuple[Part, ...]

    @functools.cached_property
    def class_sizes(self) -> np.ndarray:
        """Number of records per class, in the order of the records."""
        return np.array([size for part in self.parts for _, size in part.card["classes"]])

    @functools.cached_property
    def unlabelled(self) -> np.ndarray:
        """Whether the records of each class have no label."""
        bare = [{f"{files[0]}/" for files in part.card["sets"]} for part in self.parts]
        return np.array([name in names for part, names in zip(self.parts, bare, strict=True) for name, _ in part.card["classes"]])

    @functools.cached_property
    def class_parts(self) -> np.ndarray:
        """Part index of each class."""
        return np.repeat(np.arange(len(self.parts)), [len(part.card["classes"]) for part in self.parts])

    @property
    def max_length(self) -> int:
        """Time points of the longest record."""
        return max(part.card["max_length"] for part in self.parts)

    @property
    def num_points(self) -> int:
        """Time points of all records."""
        return sum(part.card["points"] for part in self.parts)

    @property
    def digest(self) -> str:
        """SHA-256 of records and classes; corpora with the same digest are equal."""
        return hashlib.sha256("".join(part.card["digest"] for part in self.parts).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self.class_sizes.sum())

    def read(self, indices: np.ndarray) -> list[CorpusRecord]:
        """Return records by index, in the order of the indices."""
        ends = np.cumsum([len(part.records) for part in self.parts])
        owners = np.searchsorted(ends, indices, side="right")
        records: list[Any] = [None] * len(indices)
        for owner in np.unique(owners):
            part, positions = self.parts[owner], np.flatnonzero(owners == owner)
            local = indices[positions] - (ends[owner] - len(part.records))
            for position, example in zip(positions, part.records.__getitems__(local.tolist()), strict=True):
                values = _record_values(example)
                records[position] = CorpusRecord(values[1:], values[0])
        return records


def _record_values(example: bytes) -> np.ndarray:
    """Return the floats of a serialised `tf.train.Example` of one feature; ten times as fast as the decoder of TFDS.

    Its messages are nested (features, entry, name, feature, list of floats, packed), and the floats end the last one.
    """
    start = _skip_field(example, 0, times=2) + 2 + len("record")
    return np.frombuffer(example, np.float32, offset=_skip_field(example, start, times=3))


def _skip_field(message: bytes, start: int, *, times: int) -> int:
    """Return the position after the tags and lengths of `times` nested messages."""
    for _ in range(times):
        start += 1
        while message[start] & 0x80:
            start += 1
        start += 1
    return start


def open_corpus(
    sources: Iterable[str], *, data_dir: str | os.PathLike, max_length: int, exclude: Sequence[str] = (), columns: Columns = BY_NAME
) -> Corpus:
    """Open the corpus of these sources below `data_dir`; missing parts are built first.

    A part appears when it is complete, is reused while its source files are unchanged, and is verified against its checksums
    at each start. An interrupted build keeps the finished parts.

    Args:
        sources, exclude, columns: see `find_sources`. Only train splits are read.
        data_dir: folder of the parts.
        max_length: maximum time points of a record; longer series are split (`series.split_long_series`).

    Raises:
        InputError: a source cannot be read, the folder cannot be written, or a part is damaged.
    """
    data_dir = Path(data_dir).expanduser()
    found = find_sources(sources, exclude=exclude, columns=columns)
    return Corpus(tuple(_open_part(source, data_dir, max_length) for source in found))


def open_built(folder: str | os.PathLike) -> Corpus:
    """Open a corpus of `nutime data build`: its `--data_dir` with all parts, or the folder of one part.

    Raises:
        InputError: the folder has no part, a part is damaged, or two parts have the same source.
    """
    folder = Path(folder).expanduser()
    infos = [folder / "dataset_info.json"] if (folder / "dataset_info.json").is_file() else sorted(folder.rglob("dataset_info.json"))
    names = [info.parent.parent.name.rpartition("-")[0] for info in infos]
    if not infos:
        raise InputError(f"{folder} has no corpus; pass the folder that `nutime data build --data_dir` named")
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{folder} has source {again} more than once; pass one part: {infos[names.index(again)].parent}")
    return Corpus(tuple(_read_part(name, info.parent) for name, info in zip(names, infos, strict=True)))


def _open_part(source: Source, data_dir: Path, max_length: int) -> Part:
    trains = [files.train for files in source.sets]
    stamps = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in trains]
    columns = [asdict(files.columns) for files in source.sets if files.columns != BY_NAME]
    recipe = hashlib.sha256(json.dumps([stamps, max_length, *columns]).encode()).hexdigest()[:16]
    config = f"{source.name}-{recipe}"
    folder = data_dir / "series_corpus" / config / str(SeriesCorpus.VERSION)
    if not folder.exists():
        _build(source, data_dir, config, max_length)
    return _read_part(source.name, folder)


def _read_part(name: str, folder: Path) -> Part:
    try:
        for file in ("dataset_info.json", "features.json", "metadata.json"):
            check_regular(folder / file, max_bytes=MAX_CARD_BYTES)
        builder = tfds.builder_from_directory(folder)
        card = dict(builder.info.metadata)
        shards = builder.info.splits["train"].shard_lengths
        same = card["card"] == _card_digest(card) and builder.info.features.to_json() == _features().to_json()
        files = dict(card["files"])
    except Exception as error:  # TFDS has many for damaged files
        raise _damaged_part(folder) from error
    if not same or sum(shards) != sum(size for _, size in card["classes"]):
        raise _damaged_part(folder)
    _check_files(folder, files)
    return Part(name, builder.as_data_source(split="train").data_source, card)


def _damaged_part(folder: Path) -> InputError:
    return InputError(f"{folder} is damaged, or is not a corpus of this library; remove it and rerun the command")


def _card_digest(card: dict[str, Any]) -> str:
    """Return the SHA-256 of a card without its own digest."""
    rest = {name: value for name, value in card.items() if name != "card"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _features() -> tfds.features.FeaturesDict:
    return tfds.features.FeaturesDict({"record": tfds.features.Tensor(shape=(None,), dtype=np.float32)})


def _check_files(folder: Path, checksums: dict[str, str]) -> None:
    """Raise InputError unless the files of a part have their checksums."""
    for name, checksum in checksums.items():
        path = folder / name
        if not path.is_file() or _checksum(path) != checksum:
            what = "is damaged" if path.exists() else "is missing"
            raise InputError(f"{path} {what}; remove {folder} and rerun the command, which rebuilds it")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _LocalInfo(tfds.core.DatasetInfo):
    """Description of a part. TFDS would look for it in its own bucket, and leave a temporary folder."""

    def initialize_from_bucket(self) -> None:
        pass


class SeriesCorpus(tfds.core.ShardBasedBuilder):
    """TFDS builder of one part of a corpus."""

    # Raise it when the same files give other records: older parts are then rebuilt.
    VERSION = tfds.core.Version("2.2.0")

    def __init__(self, *, source: Source, max_length: int, progress: ProgressBar, **kwargs):
        self._source, self._max_length, self._progress = source, max_length, progress
        self._tally = _Tally()
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return _LocalInfo(
            builder=self,
            description="Train splits of datasets, one series per channel: a record is an offset, and the values to add it to.",
            features=_features(),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # the order of the records is part of the format
        )

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, Any]:
        return {"train": [functools.partial(self._examples, sets) for sets in _pack(self._source.sets)]}

    def _examples(self, sets: Sequence[DatasetFiles]) -> Iterator[tuple[str, dict[str, Any]]]:
        for files in sets:
            cases = files.read("train")
            for name, series in sorted(_series_of(files.name, cases, self._max_length), key=lambda record: record[0]):
                values, offset = centre_to_float32(series)
                key = self._tally.add(name, values, offset)
                yield str(key), {"record": np.concatenate([[offset], values])}
            self._tally.sets.append([files.name, str(files.train), len(cases.series)])
            self._progress.update()

    def _download_and_prepare(self, *args, **kwargs) -> None:
        """Write the shards and complete the card before the part becomes visible."""
        super()._download_and_prepare(*args, **kwargs)
        shards = sorted(Path(self.data_dir).glob("*.array_record*"))
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        files = {path.name: _checksum(path) for path in shards}
        card = {**self._tally.card(), "files": files, "licence": self._source.licence, "versions": versions}
        self.info.metadata.update(card, card=_card_digest(card))


class _Tally:
    """Statistics of the written records, for the card."""

    def __init__(self):
        self.sets: list[list] = []
        self._sizes: dict[str, int] = {}
        self._lengths: list[int] = []
        self._digest = hashlib.sha256()

    def add(self, name: str, values: np.ndarray, offset: np.float32) -> int:
        """Count a record, and return its index."""
        self._sizes[name] = self._sizes.get(name, 0) + 1
        self._lengths.append(len(values))
        self._digest.update(f"{name}:{len(values)}:".encode() + offset.tobytes() + values.tobytes())
        return len(self._lengths) - 1

    def card(self) -> dict[str, Any]:
        lengths = {"min_length": min(self._lengths), "max_length": max(self._lengths), "points": sum(self._lengths)}
        return {"sets": self.sets, "classes": list(self._sizes.items()), **lengths, "digest": self._digest.hexdigest()}


def _pack(sets: Iterable[DatasetFiles]) -> list[list[DatasetFiles]]:
    """Group datasets in order, so that the files of a group have about SHARD_BYTES."""
    groups: list[list[DatasetFiles]] = []
    room = 0
    for files in sets:
        size = files.train.stat().st_size
        if not groups or size > room:
            groups.append([])
            room = SHARD_BYTES
        groups[-1].append(files)
        room -= size
    return groups


def _series_of(name: str, cases, max_length: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (class, series) of every channel of every case; long series in segments."""
    labels = [""] * len(cases.series) if cases.labels is None else cases.labels
    for case, label in zip(cases.series, labels, strict=True):
        for channel in case:
            for piece in split_long_series(channel, max_length):
                yield f"{name}/{label}", piece


def _build(source: Source, data_dir: Path, config: str, max_length: int) -> None:
    absl_log, level = logging.getLogger("absl"), logging.getLogger("absl").level
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        absl_log.setLevel(logging.ERROR)  # TFDS greets every build with prints, warnings and bars
        tfds.disable_progress_bar()
        with _alone(data_dir), _progress(source) as progress, open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
            builder_config = tfds.core.BuilderConfig(name=config, version=str(SeriesCorpus.VERSION))
            builder = SeriesCorpus(source=source, max_length=max_length, progress=progress, data_dir=data_dir, config=builder_config)
            if Path(builder.data_dir).exists():
                return  # another process has built it meanwhile
            for leftover in Path(builder.data_dir).parent.glob("incomplete.*"):
                shutil.rmtree(leftover)  # of a build that was killed
            log.info("building part %s of the corpus, %d dataset(s), in %s", source.name, len(source.sets), data_dir)
            builder.download_and_prepare(file_format="array_record")
    except (OSError, RuntimeError) as error:  # ArrayRecord reports what the disk says as a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).split(";")[0]
        raise InputError(f"cannot write the corpus to {data_dir} ({reason}); make room, or choose another data.dir") from error
    finally:
        absl_log.setLevel(level)
        tfds.enable_progress_bar()


def _progress(source: Source) -> ProgressBar:
    return ProgressBar(total=len(source.sets), desc=f"building {source.name}", unit="set", delay=1, leave=False)


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """One process builds below a folder at a time; others wait, and find what it has built."""
    with (data_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
