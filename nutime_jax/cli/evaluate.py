"""Compare the frozen features of a pretrained encoder with those of its untrained baseline on labelled datasets.

    nutime evaluate --encoder=runs/quickstart --datasets=bundled
    nutime evaluate --encoder=runs/quickstart --datasets=GunPoint,my_folder,sets/Fish.npz --pooling=cls

A ridge classifier and 1-NN on standardised features are fitted on the default train split of each dataset and scored on its
test split, next to 1-NN on the raw series. The output has one row per dataset, method and probe.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nutime_jax.cli.arguments import add_columns, add_encoder, add_features, columns_of, user_path
from nutime_jax.errors import InputError
from nutime_jax.storage import error_summary, storage_for

if TYPE_CHECKING:
    from nutime_jax.data.tables import Columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    parser.add_argument("--datasets", default="bundled", help="names, files or folders, separated by commas (default: bundled)")
    add_columns(parser)
    add_features(parser, channels="concat")
    parser.add_argument("--out", type=user_path, default=Path("results.csv"), help="table of results (default: results.csv)")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.loading import load_encoder, untrained_encoder

    pretrained = load_encoder(args.encoder)
    encoders = {"untrained": untrained_encoder(pretrained.config, trained=pretrained), "pretrained": pretrained}
    pooling = pretrained.choose_pooling(layer=args.layer, pooling=args.pooling)
    options = {"layer": args.layer, "pooling": pooling, "channels": args.channels}
    compare_encoders(encoders, args.datasets.split(","), args.out, columns=columns_of(args), **options)


def compare_encoders(encoders: dict, sources: Sequence[str], output: Path, *, columns: "Columns | None" = None, **options) -> None:
    """Compare encoders on the datasets of `sources`, print the table and write the results; `options` as `Encoder.embed`.

    Datasets that cannot be evaluated are named below the table.
    """
    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.data.tables import BY_NAME
    from nutime_jax.evaluation.features import read_task
    from nutime_jax.evaluation.protocols.probes import RAW, compare, format_accuracies
    from nutime_jax.evaluation.results import write_rows
    from nutime_jax.progress import ProgressBar

    rows, errors = [], []
    with ProgressBar(find_all_datasets(sources, columns=columns or BY_NAME), desc="evaluating", unit=" datasets") as bar:
        for files in bar:
            bar.set_postfix_str(files.name)
            try:
                rows += compare(encoders, read_task(files), **options)
            except InputError as error:
                errors.append(error)
    if not rows:
        raise errors[0] if errors else InputError("No dataset is given; add names to --datasets")
    columns = {(method, "ridge"): method for method in encoders} | {(RAW, "baseline"): "raw 1-NN"}
    print(f"\nAccuracy in % on test splits: ridge on frozen features ({options['pooling']}), and 1-NN on the raw series\n")
    print(format_accuracies(rows, columns))
    for error in errors:
        print(f"\nskipped: {error}")
    try:
        write_rows(rows, output)
    except storage_for(output).write_errors as error:
        raise InputError(f"Cannot write {output} ({error_summary(error)}); choose another --out") from error
    print(f"written to {output}")
