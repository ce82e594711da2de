"""Writes the features of the series of a file, a bundled set or a corpus, however many there are.

    nutime embed --encoder=nutime-small --data=GunPoint --split=train --out=features.npz
    nutime embed --encoder=runs/quickstart --data=readings.parquet --out=features.parquet --channels=concat
    nutime embed --encoder=nutime-small --data=corpora --out=features.npy

Files are those that training reads. Parquet (wide; long with the rows of a series one after the other), .npz and .npy
files and corpora that `nutime data build` wrote are read a block at a time, and features are written as they are made:
memory does not grow with their number. Ids and labels go along, but for .npy, which holds the features alone:

    .npz              features (cases, features) float32, and labels and ids, where there are any
    .csv, .parquet    a row a case: id, label, f0, f1, ...

The file is at its place only when it is whole.
"""

import argparse
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nutime_jax.cli.evaluate import user_path
from nutime_jax.cli.finetune import one_set
from nutime_jax.errors import InputError

WRITTEN = 1024
"""Cases that are written at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", required=True, help="a shipped encoder, a saved one, or a workdir of `nutime pretrain`")
    parser.add_argument("--data", required=True, help="a file, a bundled set, a folder that holds one set, or a corpus")
    parser.add_argument("--out", required=True, type=user_path, help="where the features go: .npz, .npy, .parquet or .csv")
    parser.add_argument("--split", choices=("train", "test"), help="which split of a set that has two; a lone file is its train split")
    parser.add_argument("--layer", type=int, help="layer to read; 0 is before the first block (default: the last, normalised)")
    parser.add_argument("--pooling", help="cls, mean, cls+mean or all_layers, which is that of every layer (default: the encoder's)")
    parser.add_argument("--channels", default="mean", help="mean or concat over channels, or none: both kept apart (default: mean)")
    parser.add_argument("--batch_size", type=int, default=256, help="channels embedded at once (default: 256)")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.data.features import check_output, open_features

    check_output(args.out)
    stream, where = _open(args.data, args.split)
    import numpy as np
    from tqdm import tqdm

    from nutime_jax.loading import load_encoder

    encoder = load_encoder(args.encoder)
    options = {"layer": args.layer, "pooling": args.pooling, "channels": args.channels, "batch_size": args.batch_size}
    labels, ids = deque(), deque()

    def cases() -> Iterator[np.ndarray]:
        for block in stream.blocks:
            labels.extend(() if block.labels is None else block.labels)
            ids.extend(() if block.ids is None else block.ids)
            yield from block.series

    rows, count = encoder.embed(cases(), **options), 0
    try:
        with open_features(args.out) as file, tqdm(total=stream.count, desc="embedding", unit=" series", disable=None) as bar:
            while chunk := list(islice(rows, WRITTEN)):
                texts = {name: _take(known, len(chunk)) for name, known in (("labels", labels), ("ids", ids))}
                file.write(np.stack(chunk), **texts)
                count += len(chunk)
                bar.update(len(chunk))
            if not count:
                raise InputError(f"{where} holds no series; give a file that holds some")
    except InputError as error:
        raise InputError(f"{where}, {error}") if str(error).startswith("case ") else error from None
    print(f"{count} series embedded, written to {args.out}")


def _open(data: str, split: str | None):
    """The stream of what --data names, and what an error calls it."""
    from nutime_jax.data.streams import is_corpus, open_corpus_stream, open_stream

    if is_corpus(folder := Path(data).expanduser()):
        if split == "test":
            raise InputError(f"{data} is a corpus, which is made of train splits; leave --split out")
        return open_corpus_stream(folder), data
    files = one_set(data, flag="--data")
    if split is None and files.test is not None:
        raise InputError(f"set {files.name} can have two splits; say which with --split=train or --split=test")
    return open_stream(files, split or "train"), str(files.path(split or "train"))


def _take(known: deque, count: int):
    """The first of what is known of the cases; None where nothing is."""
    import numpy as np

    return np.array([known.popleft() for _ in range(count)]) if known else None
