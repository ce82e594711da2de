"""Compare encoders on labelled datasets: by default one encoder with its untrained baseline.

    nutime evaluate --encoder=runs/quickstart --dataset=bundled
    nutime evaluate --encoder=nutime-small --dataset=labelled.csv --folds=5
    nutime evaluate --encoder=before=nutime-small --encoder=after=runs/mine --dataset=GunPoint,my_folder --out=gain.csv

A kernel ridge classifier and 1-NN on standardised features are fitted on the default train split of each dataset and scored on its
test split, next to 1-NN on the raw series. --folds=N scores N stratified folds of the train split instead: one file is enough.
The last lines are differences from the first method, with their standard errors. The table has one row per dataset, method,
probe, split and metric; it is the input of `nutime report`.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nutime_jax.cli.arguments import ENCODER_HELP, add_channels, add_columns, add_features, columns_of, names_in, open_encoder, user_path
from nutime_jax.errors import InputError
from nutime_jax.storage import access_errors, error_summary

if TYPE_CHECKING:
    from nutime_jax.data.datasets import DatasetFiles
    from nutime_jax.evaluation.comparison import Comparison
    from nutime_jax.evaluation.encoders import NamedEncoder
    from nutime_jax.evaluation.features import FeatureSpec, Task


def add_arguments(parser: argparse.ArgumentParser) -> None:
    help_text = f"[NAME=]PATH: {ENCODER_HELP}; untrained:PATH is its untrained baseline; may be repeated"
    parser.add_argument("--encoder", action="append", required=True, metavar="[NAME=]ENCODER", help=help_text)
    add_features(parser)
    add_channels(parser)
    parser.add_argument("--dataset", default="bundled", help="names, files or folders, separated by commas (default: bundled)")
    add_columns(parser)
    parser.add_argument("--folds", type=int, default=0, help="score this number of folds of the train split (default: the test split)")
    parser.add_argument("--out", type=user_path, default=Path("results.csv"), help="table of results (default: results.csv)")
    parser.add_argument("--overwrite", action="store_true", help="replace the table of --out")


def run(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.overwrite:
        raise InputError(f"--out={args.out} exists; choose another --out, or add --overwrite")
    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.evaluation.encoders import UNTRAINED, find_encoders, split_name
    from nutime_jax.evaluation.features import FeatureSpec

    datasets = find_all_datasets(names_in(args.dataset), columns=columns_of(args))
    reads: list[Callable[[], Task]] = [partial(read_splits, files, args.folds) for files in datasets]
    if len(reads) == 1:
        task = reads[0]()  # a file that cannot be evaluated is rejected before an encoder is loaded
        reads = [lambda: task]
    names = [split_name(entry)[0] for entry in args.encoder]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two encoders are called {name!r}; name one of them, as in --encoder=after={name}")
    entries, path = args.encoder, split_name(args.encoder[0])[1]
    if len(entries) == 1 and not path.startswith(UNTRAINED):  # a comparison needs a second encoder
        entries = [f"untrained={UNTRAINED}{path}", *entries]
    encoders = find_encoders(entries, load=lambda where: open_encoder(args, where))
    offsets, setting = args.window_offsets or 0, args.setting or ""
    spec = FeatureSpec(args.layer, args.pooling, args.channels, num_window_offsets=offsets, setting=setting)
    compare_encoders(encoders, reads, args.out, spec=spec, folds=args.folds)
    print(f"next: nutime report {args.out}")


def compare_encoders(
    encoders: Sequence["NamedEncoder"], reads: Sequence[Callable[[], "Task"]], output: Path, *, spec: "FeatureSpec", folds: int = 0
) -> None:
    """Compare encoders on datasets, print accuracies and differences from the first encoder, and write the results.

    Args:
        encoders: with different names.
        reads: functions that read a dataset each. Datasets that cannot be evaluated are named below the table.
        output: table of results.
        spec: features.
        folds: number of folds of the train splits; 0 scores test splits.
    """
    from nutime_jax.evaluation.comparison import RAW, compare, difference, format_accuracies, format_difference
    from nutime_jax.evaluation.results import write_rows
    from nutime_jax.progress import ProgressBar

    names = [encoder.name for encoder in encoders]
    by_name, sources = ({each.name: getattr(each, field) for each in encoders} for field in ("encoder", "source"))
    comparisons: list[Comparison] = []
    errors: list[InputError] = []
    with ProgressBar(reads, desc="evaluating", unit=" datasets", disable=len(reads) == 1) as bar:
        for read in bar:
            try:
                task = read()
                bar.set_postfix_str(task.name)
                comparisons.append(compare(by_name, task, spec=spec, folds=folds, sources=sources))
            except InputError as error:
                errors.append(error)
    if not comparisons:
        raise errors[0] if errors else InputError("No dataset is given; add names to --dataset")
    scored = f"{folds} folds of the train splits" if folds else "test splits"
    pooling = spec.of(encoders[0].encoder).pooling
    print(f"\nAccuracy in % on {scored}: kernel ridge on frozen features ({pooling}), and 1-NN on the raw series\n")
    print(format_accuracies(comparisons, {**{name: name for name in names}, RAW: "raw 1-NN"}))
    for error in errors:
        print(f"\nskipped: {error}")
    print()
    for name in names[1:]:
        print(format_difference(difference(comparisons, name, names[0]), name, names[0]))
    try:
        write_rows([row for comparison in comparisons for row in comparison.rows], output)
    except access_errors(output) as error:
        raise InputError(f"Cannot write {output} ({error_summary(error)}); choose another --out") from error
    print(f"written to {output}")


def read_splits(files: "DatasetFiles", folds: int = 0) -> "Task":
    """Return the splits of a dataset; with folds the train split alone."""
    from nutime_jax.evaluation.features import Task, read_task

    if folds:
        return Task(files.name, train=files.read_labelled("train"), test=None)
    if files.test is None:
        raise InputError(f"dataset {files.name} has no test split beside {files.train}; add --folds=5 to cross-validate its train split")
    return read_task(files)
