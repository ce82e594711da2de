"""Inspect, download and build datasets before training.

    nutime data inspect my_folder
    nutime data download --to=archives ucr uea
    nutime data build --config=nutime_paper --data_dir=corpora

`nutime data ACTION --help` explains the flags of an action.
"""

import argparse

from nutime_jax.cli.arguments import Action, add_actions, add_columns, add_config, columns_of, user_path
from nutime_jax.config import load_config
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_actions(parser, ACTIONS, name="action")


def run(args: argparse.Namespace) -> None:
    ACTIONS[args.action].run(args)


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, folder of files, name of a bundled dataset, or bundled for all")
    add_columns(parser)
    parser.add_argument("--json", type=user_path, metavar="FILE", help="also write all statistics to FILE, as JSON")
    parser.add_argument("--plot", type=user_path, metavar="FILE.png", help="plot a few training series per class to FILE.png")


def _inspect(args: argparse.Namespace) -> None:
    """Print the contents of datasets: format, cases, channels, lengths, classes, missing values, scales, duplicates.

        nutime data inspect bundled
        nutime data inspect my_folder sets/Fish.npz --json stats.json --plot series.png

    One dataset is described in detail, several in a table. Datasets that cannot be read are named below it, with exit
    status 2. Test splits are only described; they choose nothing.
    """
    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.data.inspection import inspect_dataset
    from nutime_jax.data.report import format_datasets, plot_series, write_json
    from nutime_jax.progress import ProgressBar

    statistics, readable, errors = [], [], {}
    with ProgressBar(
        find_all_datasets(args.paths, columns=columns_of(args)), desc="inspecting", unit=" datasets", leave=False, disable=None
    ) as bar:
        for files in bar:
            bar.set_postfix_str(files.name)
            try:
                statistics.append(inspect_dataset(files))
                readable.append(files)
            except InputError as error:
                errors[files.name] = str(error)
    if not statistics and len(errors) == 1:
        raise InputError(*errors.values())
    if statistics:
        print(format_datasets(statistics))
    for message in errors.values():
        print(f"\nunreadable: {message}")
    if args.json:
        write_json(statistics, errors, args.json)
    if args.plot and readable:
        plot_series(readable, args.plot)
    if errors:
        raise InputError(f"{len(errors)} of {len(errors) + len(statistics)} datasets cannot be read; fix or remove them")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_columns(parser)
    parser.add_argument("--data_dir", required=True, type=user_path, help="folder of corpora; runs use it with --config.data.dir")


def _build(args: argparse.Namespace) -> None:
    """Build the corpus of a configuration, one part per source, and print its contents and the samples that each source gives.

        nutime data build --config=nutime_paper --data_dir=corpora
        nutime data build --config=quickstart --data_dir=corpora --config.data.sources=my_folder,bundled

    Existing parts are checked against their checksums. After an interruption, rerun the same command to resume with the
    current part. Runs with --config.data.dir=corpora use the result.
    """
    config = load_config(args.config, args.overrides)
    from nutime_jax.data.corpus import open_corpus
    from nutime_jax.data.loader import source_shares
    from nutime_jax.data.report import format_corpus

    data = config.data
    options = {"exclude": data.exclude, "max_length": data.max_length, "columns": columns_of(args)}
    corpus = open_corpus(data.sources, data_dir=args.data_dir, **options)
    print(format_corpus(corpus, source_shares(corpus, alpha=data.class_balance_alpha, weights=data.source_weights)))
    print(f"\nwritten to {args.data_dir}; next: nutime pretrain with the same --config options and --config.data.dir={args.data_dir}")


def _download_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="ucr, uea, transfer, or one dataset, as ucr/GunPoint (default: all)")
    parser.add_argument("--to", required=True, type=user_path, metavar="FOLDER", help="datasets are written to FOLDER/ARCHIVE/DATASET")


def _download(args: argparse.Namespace) -> None:
    """Download the archives of the published corpus: the UCR and UEA archives, and TF-C's transfer datasets.

        nutime data download --to=archives
        nutime data download --to=archives transfer ucr/GunPoint

    Existing datasets are skipped. The transfer datasets are PyTorch files; their conversion needs torch. For the licences
    of the archives see timeseriesclassification.com, and the deposits of TF-C at figshare.
    """
    from nutime_jax.data.download import ARCHIVES, archive_sets, download_set
    from nutime_jax.progress import ProgressBar

    wanted = []
    for name in args.names or ARCHIVES:
        archive, _, dataset = name.partition("/")
        available = archive_sets(archive)
        if dataset and dataset not in available:
            raise InputError(f"Archive {archive} has no dataset {dataset!r}; choose one of {', '.join(available)}")
        wanted += [(archive, chosen) for chosen in ([dataset] if dataset else available)]
    with ProgressBar(wanted, desc="downloading", unit=" datasets", disable=None) as bar:
        for archive, name in bar:
            bar.set_postfix_str(name)
            download_set(archive, name, args.to)
    print(f"{len(wanted)} datasets are in {args.to}")


ACTIONS = {
    "inspect": Action("print the contents of files of series", _inspect_arguments, _inspect),
    "build": Action("build the corpus of a configuration, which runs can share", _build_arguments, _build),
    "download": Action("download the archives of the published corpus", _download_arguments, _download),
}
