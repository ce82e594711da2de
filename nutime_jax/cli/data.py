"""Looks after series before anything is trained on them.

    nutime data inspect my_folder

`nutime data ACTION --help` explains the flags of an action.
"""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from nutime_jax.cli.evaluate import user_path
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

    from nutime_jax.data.archives import find_all
    from nutime_jax.data.inspection import inspect_set
    from nutime_jax.data.report import draw, format_sets, write_json

    facts, read, refused = [], [], {}
    with tqdm(find_all(args.paths), desc="inspecting", unit=" sets", leave=False, disable=None) as bar:
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


@dataclass(frozen=True)
class Action:
    """What `nutime data NAME` does."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


ACTIONS = {
    "inspect": Action("say what files of series hold", _inspect_arguments, _inspect),
}
