"""Looks after series before anything is trained on them.

    nutime data inspect my_folder
    nutime data download --to=archives ucr uea
    nutime data build --config=nutime_base --data_dir=corpora

`nutime data ACTION --help` explains the flags of an action.
"""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from nutime_jax.cli.evaluate import user_path
from nutime_jax.config import PretrainConfig, load_config, shipped_configs
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, action in ACTIONS.items():
        formatter = argparse.RawDescriptionHelpFormatter
        one = actions.add_parser(
            name, help=action.summary, description=inspect.getdoc(action.run), formatter_class=formatter, allow_abbrev=False
        )
        action.add_arguments(one)


def run(args: argparse.Namespace) -> None:
    ACTIONS[args.action].run(args)


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder of files, the name of a bundled set, or bundled for all")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="write all that was found to FILE, for machines")
    parser.add_argument("--plot", type=user_path, metavar="FILE.png", help="draw a few training series of each class to FILE.png")


def _inspect(args: argparse.Namespace) -> None:
    """Says what files hold: format, cases, channels, lengths, classes, missing values, scales, repetitions.

        nutime data inspect bundled
        nutime data inspect my_folder sets/Fish.npz --json facts.json --plot series.png

    One set is described by a sheet, several by a table. Sets that cannot be read are named below, and the status is then 2.
    Nothing is chosen by what test splits hold; they are only described.
    """
    from tqdm import tqdm

    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.data.inspection import inspect_set
    from nutime_jax.data.report import draw, format_sets, write_json

    facts, read, refused = [], [], {}
    with tqdm(find_all_datasets(args.paths), desc="inspecting", unit=" sets", leave=False, disable=None) as bar:
        for files in bar:
            bar.set_postfix_str(files.name)
            try:
                facts.append(inspect_set(files))
                read.append(files)
            except InputError as error:
                refused[files.name] = str(error)
    if not facts and len(refused) == 1:
        raise InputError(*refused.values())
    if facts:
        print(format_sets(facts))
    if refused:
        print(*(f"\ncannot be read: {message}" for message in refused.values()), sep="")
    if args.json:
        write_json(facts, refused, args.json)
    if args.plot and read:
        draw(read, args.plot)
    if refused:
        raise InputError(f"{len(refused)} of {len(refused) + len(facts)} sets cannot be read; mend them, or leave them out")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(schema=PretrainConfig)
    parser.add_argument("--config", required=True, help=f"a shipped configuration ({', '.join(shipped_configs())}) or a path to a .py file")
    parser.add_argument("--data_dir", required=True, type=user_path, help="where corpora are kept; give it to runs as --config.data.dir")


def _build(args: argparse.Namespace) -> None:
    """Builds the corpus of a configuration, a part a source, and says what is in it.

        nutime data build --config=nutime_base --data_dir=corpora
        nutime data build --config=quickstart --data_dir=corpora --config.data.sources=my_folder,bundled

    Parts that are there already are checked against their checksums. Interrupted, the same command goes on with the part
    it was in. Runs with --config.data.dir=corpora find what is built.
    """
    config = load_config(args.config, args.overrides)
    from nutime_jax.data.corpus import open_corpus
    from nutime_jax.data.report import format_corpus

    data = config.data
    corpus = open_corpus(data.sources, exclude=data.exclude, data_dir=args.data_dir, max_length=data.max_length)
    print(format_corpus(corpus))


def _download_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="ucr, uea, transfer, or sets of theirs as ucr/GunPoint (default: all)")
    parser.add_argument("--to", required=True, type=user_path, metavar="FOLDER", help="sets go to FOLDER/ARCHIVE/SET")


def _download(args: argparse.Namespace) -> None:
    """Fetches the archives of the published corpus, a set at a time: the UCR and UEA archives, and TF-C's transfer sets.

        nutime data download --to=archives
        nutime data download --to=archives transfer ucr/GunPoint

    Sets that are there are not fetched again. The transfer sets are PyTorch files, and need torch to be converted. The
    terms of the archives are their own: see timeseriesclassification.com, and the deposits of TF-C at figshare.
    """
    from tqdm import tqdm

    from nutime_jax.data.download import ARCHIVES, archive_sets, download_set

    wanted = []
    for name in args.names or ARCHIVES:
        archive, _, one = name.partition("/")
        known = archive_sets(archive)
        if one and one not in known:
            raise InputError(f"archive {archive} has no set {one!r}; it has {', '.join(known)}")
        wanted += [(archive, each) for each in ([one] if one else known)]
    with tqdm(wanted, desc="downloading", unit=" sets", disable=None) as bar:
        for archive, name in bar:
            bar.set_postfix_str(name)
            download_set(archive, name, args.to)
    print(f"{len(wanted)} sets are in {args.to}")


@dataclass(frozen=True)
class Action:
    """What `nutime data NAME` does."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


ACTIONS = {
    "inspect": Action("say what files of series hold", _inspect_arguments, _inspect),
    "build": Action("build the corpus of a configuration, to be shared by runs", _build_arguments, _build),
    "download": Action("fetch the archives of the published corpus", _download_arguments, _download),
}
