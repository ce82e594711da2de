"""A pretraining corpus: the train splits of sets, every channel a series, stored as ArrayRecord by TFDS."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from nutime_jax.data.archives import find_all
from nutime_jax.data.series import cut_series
from nutime_jax.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """An opened corpus.

    source: random access to records {"series": (time,) float32}, sorted by class.
    class_sizes: records of each class, in the order of the records.
    max_length: points of the longest record.
    digest: SHA-256 of the records and their classes; two corpora with one digest are the same.
    """

    source: Any
    class_sizes: np.ndarray
    max_length: int
    digest: str

    def __len__(self) -> int:
        return int(self.class_sizes.sum())


class SeriesCorpus(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of one corpus: `records` are pairs (class, series), sorted by class."""

    # To be raised when the same files would give other records: corpora built before are then built anew.
    VERSION = tfds.core.Version("1.1.0")

    def __init__(self, *, records: list[tuple[str, np.ndarray]], **kwargs):
        self._records = records
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Train splits of labelled sets, every channel a series.",
            features=tfds.features.FeaturesDict({"series": tfds.features.Tensor(shape=(None,), dtype=np.float32)}),
            metadata=tfds.core.MetadataDict(_card(self._records)),
            disable_shuffling=True,  # the order of the records is part of what is promised
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for key, (_, series) in enumerate(self._records):
            yield key, {"series": series}


def open_corpus(sources: tuple[str, ...], *, data_dir: str | os.PathLike, max_length: int) -> Corpus:
    """Opens the corpus of these sources below `data_dir`, building it first if it is not there.

    A build is visible only when it is complete, and is found again as long as the files it came from are unchanged.

    Args:
        sources: names, files or folders; see `archives.find_all`. Only train splits are read.
        data_dir: where corpora are kept.
        max_length: longer series are cut (`series.cut_series`).

    Raises:
        InputError: no sources, unreadable sources, or a folder that cannot be written.
    """
    sets = find_all(sources)
    if not sets:
        raise InputError("the corpus is empty: data.sources names nothing; give sets, files or folders, or 'bundled'")
    stamps = [(str(one.train), one.train.stat().st_size, one.train.stat().st_mtime_ns) for one in sets]
    recipe = hashlib.sha256(json.dumps([stamps, max_length]).encode()).hexdigest()[:16]
    folder = Path(data_dir).expanduser() / "series_corpus" / recipe / str(SeriesCorpus.VERSION)
    if not folder.exists():
        records = [record for one in sets for record in _records(one, max_length)]
        _build(sorted(records, key=lambda record: record[0]), Path(data_dir).expanduser(), recipe)
    builder = tfds.builder_from_directory(folder)
    card = builder.info.metadata
    sizes = np.array([size for _, size in card["classes"]])
    return Corpus(builder.as_data_source(split="train"), sizes, card["max_length"], card["digest"])


def _records(one, max_length: int) -> Iterator[tuple[str, np.ndarray]]:
    cases = one.read("train")
    labels = [""] * len(cases.series) if cases.labels is None else cases.labels
    for series, label in zip(cases.series, labels, strict=True):
        for channel in series:
            for piece in cut_series(channel, max_length):
                yield f"{one.name}/{label}", piece


def _card(records: list[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """What the corpus holds: [class, records] in order, the longest record, and the digest of it all."""
    digest = hashlib.sha256()
    sizes: dict[str, int] = {}
    for name, series in records:
        sizes[name] = sizes.get(name, 0) + 1
        digest.update(f"{name}:{len(series)}:".encode() + series.tobytes())
    longest = max(len(series) for _, series in records)
    return {"classes": list(sizes.items()), "max_length": longest, "digest": digest.hexdigest()}


def _build(records: list[tuple[str, np.ndarray]], data_dir: Path, recipe: str) -> None:
    log.info("building a corpus of %d series in %s", len(records), data_dir)
    config = tfds.core.BuilderConfig(name=recipe, version=str(SeriesCorpus.VERSION))
    absl_log, level = logging.getLogger("absl"), logging.getLogger("absl").level
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        absl_log.setLevel(logging.ERROR)  # TFDS greets every build with prints, warnings and bars
        tfds.disable_progress_bar()
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
            builder = SeriesCorpus(records=records, data_dir=data_dir, config=config)
            builder.download_and_prepare(file_format="array_record")
    except OSError as error:
        raise InputError(f"cannot write the corpus to {data_dir} ({error.strerror or error}); choose another data.dir") from error
    finally:
        absl_log.setLevel(level)
        tfds.enable_progress_bar()
