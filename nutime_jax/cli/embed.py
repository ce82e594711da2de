"""Write the features of the series of a file, a bundled dataset or a corpus.

    nutime embed --encoder=nutime-small --data=GunPoint --split=train --out=features.npz
    nutime embed --encoder=runs/quickstart --data=readings.parquet --out=features.parquet --channels=concat
    nutime embed --encoder=nutime-small --data=corpora --out=features.npy

Input is any file of series: a table (.csv, .parquet), .npz, .ts and others (docs/data.md). Parquet (wide; long with the rows
of a series in sequence), .npz and .npy files and corpora of `nutime data build` are read in blocks, and features are written
as they are computed: memory does not grow with the number of series. Ids and labels are copied, except to .npy, which
contains only features:

    .npz              features (cases, features) float32, and labels and ids if present
    .csv, .parquet    one row per case: id, label, f0, f1, ...

The output is moved to its path when it is complete.
"""

import argparse
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nutime_jax.cli.arguments import (
    add_channels,
    add_columns,
    add_data,
    add_encoder,
    add_safe_csv,
    choose_split,
    columns_of,
    one_dataset,
    open_encoder,
    user_path,
)
from nutime_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from nutime_jax.data.columns import Columns
    from nutime_jax.data.streams import Stream

CASES_PER_WRITE = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    add_data(parser, accepted="file, bundled dataset, folder with one dataset, or corpus")
    add_columns(parser)
    parser.add_argument("--out", required=True, type=user_path, help="file of the features: .npz, .npy, .parquet or .csv")
    add_safe_csv(parser)
    add_channels(parser, accepted="concat or mean over channels, or none to keep them")
    parser.add_argument("--batch_size", type=int, default=256, help="channels per batch (default: 256)")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.data.features import check_output

    check_output(args.out)
    columns = columns_of(args)
    stream, source = _open(args.data, args.split, columns)
    encoder = open_encoder(args)
    if args.normalise == "dataset":
        encoder = encoder.fit_normalisation(one_dataset(args.data, flag="--data", columns=columns).read("train").series)
    cases = _Cases(stream)
    options = {"layer": args.layer, "pooling": args.pooling, "channels": args.channels, "batch_size": args.batch_size}
    try:
        count = _write(encoder.embed(iter(cases), **options), cases, args.out, source=source, safe_csv=args.safe_csv)
    except InputError as error:
        raise InputError(f"{source}, {error}") if str(error).startswith("case ") else error from None
    print(f"{count} series embedded\nwritten to {args.out}")


def _open(data: str, split: str | None, columns: "Columns") -> tuple["Stream", str]:
    """Return the stream of --data, and its name in messages."""
    from nutime_jax.data.streams import is_corpus, open_corpus_stream, open_stream

    folder = Path(data).expanduser()
    if is_corpus(folder):
        if split == "test":
            raise InputError(f"{data} is a corpus, which contains train splits; remove --split=test")
        return open_corpus_stream(folder), data
    files = one_dataset(data, flag="--data", columns=columns)
    split = choose_split(files, split)
    return open_stream(files, split), str(files.path(split))


class _Cases:
    """Series of a stream in order, one pass; labels and ids of series that were read wait until they are taken.

    The encoder reads ahead of its output, so that texts are in a queue.
    """

    def __init__(self, stream: "Stream"):
        self.count = stream.count
        self._blocks = stream.blocks
        self._texts: dict[str, deque] = {"labels": deque(), "ids": deque()}

    def __iter__(self) -> Iterator["np.ndarray"]:
        for block in self._blocks:
            for name, queue in self._texts.items():
                values = getattr(block, name)
                if values is not None:
                    queue.extend(values)
            yield from block.series

    def take_texts(self, count: int) -> dict[str, "np.ndarray | None"]:
        """Return labels and ids of the next cases; None if the stream has none."""
        import numpy as np

        return {name: np.array([queue.popleft() for _ in range(count)]) if queue else None for name, queue in self._texts.items()}


def _write(rows: Iterator["np.ndarray"], cases: _Cases, path: Path, *, source: str, safe_csv: bool) -> int:
    """Write all features, with the texts of their cases; return the number of cases."""
    import numpy as np

    from nutime_jax.data.features import open_features
    from nutime_jax.progress import ProgressBar

    count = 0
    with (
        open_features(path, safe_csv=safe_csv) as file,
        ProgressBar(total=cases.count, desc="embedding", unit=" series", disable=None) as bar,
    ):
        while block := list(islice(rows, CASES_PER_WRITE)):
            file.write(np.stack(block), **cases.take_texts(len(block)))
            count += len(block)
            bar.update(len(block))
        if not count:
            raise InputError(f"{source} contains no series; choose another --data")
    return count
