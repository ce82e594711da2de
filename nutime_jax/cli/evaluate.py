"""Compares the frozen features of a pretrained encoder with those of its untrained twin on labelled sets.

    nutime evaluate --encoder=runs/quickstart --datasets=bundled
    nutime evaluate --encoder=runs/quickstart --datasets=GunPoint,my_folder,sets/Fish.npz --pooling=cls

A ridge classifier and 1-NN on standardised features are fitted on the default train split of each set and scored on its
test split; 1-NN on the raw series stands beside them. Writes a row a set, method and probe to results.csv.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from nutime_jax.errors import InputError
from nutime_jax.storage import as_folder, place_of, said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder", required=True, type=encoder_path, help="a shipped encoder, a workdir of `nutime pretrain`, or one checkpoint"
    )
    parser.add_argument("--datasets", default="bundled", help="names, files or folders, separated by commas (default: bundled)")
    parser.add_argument("--layer", type=int, help="layer to read; 0 is before the first block (default: the last, normalised)")
    parser.add_argument("--pooling", help="cls, mean, cls+mean or all_layers, which is that of every layer (default: the encoder's)")
    parser.add_argument("--channels", default="concat", help="mean or concat over channels, which are encoded alone (default: concat)")
    parser.add_argument("--out", type=user_path, default=Path("results.csv"), help="where the results go (default: results.csv)")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.loading import load_encoder, untrained_encoder

    pretrained = load_encoder(args.encoder)
    encoders = {"untrained": untrained_encoder(pretrained.config, trained=pretrained), "pretrained": pretrained}
    pooling = pretrained.choose_pooling(layer=args.layer, pooling=args.pooling)
    options = {"layer": args.layer, "pooling": pooling, "channels": args.channels}
    compare_sets(encoders, args.datasets.split(","), args.out, **options)


def user_path(text: str) -> Path:
    """A path as a user writes it, ~ included."""
    if re.match(r"\w+://", text):
        raise argparse.ArgumentTypeError(f"{text} is no folder here; mount the bucket (launch/README.md says how), and give the path")
    return Path(text).expanduser()


def run_path(text: str) -> Path:
    """A workdir or checkpoint as a user writes it: a path, or gs://BUCKET/FOLDER."""
    try:
        return as_folder(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def encoder_path(text: str) -> str | Path:
    """The name of a shipped encoder as it is; a workdir or checkpoint as `run_path` reads it."""
    return text if re.fullmatch(r"[\w.-]+", text) and not Path(text).exists() else run_path(text)


def compare_sets(encoders: dict, sources: Sequence[str], output: Path, **options) -> None:
    """Compares encoders on the sets of `sources`, prints the table and writes the results; `options` as `Encoder.embed`.

    Sets that cannot be evaluated are left out, and named below the table.
    """
    from tqdm import tqdm

    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.evaluation.comparison import RAW, compare, format_accuracies
    from nutime_jax.evaluation.features import read_task
    from nutime_jax.evaluation.results import write_rows

    rows, left_out = [], []
    with tqdm(find_all_datasets(sources), desc="evaluating", unit=" sets") as bar:
        for files in bar:
            bar.set_postfix_str(files.name)
            try:
                rows += compare(encoders, read_task(files), **options)
            except InputError as error:
                left_out.append(error)
    if not rows:
        raise left_out[0] if left_out else InputError("there is nothing to evaluate; name a set with --datasets")
    columns = {(method, "ridge"): method for method in encoders} | {(RAW, "baseline"): "raw 1-NN"}
    print(f"\nAccuracy in % on test splits: ridge on frozen features ({options['pooling']}), and 1-NN on the raw series\n")
    print(format_accuracies(rows, columns))
    print(*(f"\nleft out: {error}" for error in left_out), sep="")
    try:
        write_rows(rows, output)
    except place_of(output).failures as error:
        raise InputError(f"cannot write {output} ({said(error)}); choose another --out") from error
    print(f"written to {output}")
