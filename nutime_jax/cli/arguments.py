"""Flags that several commands share, and the parsing of their values."""

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nutime_jax.config import PretrainConfig, shipped_configs
from nutime_jax.errors import InputError
from nutime_jax.options import Section
from nutime_jax.storage import resolve_path

if TYPE_CHECKING:
    from nutime_jax.data.datasets import DatasetFiles
    from nutime_jax.data.tables import Columns


class Action(NamedTuple):
    """An action of a command, such as `nutime data inspect`; its description is the docstring of `run`."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Any]


def add_actions(parser: argparse.ArgumentParser, actions: Mapping[str, Action], *, name: str) -> None:
    """Add one subcommand per action; the parsed namespace has the chosen one as attribute `name`."""
    subparsers = parser.add_subparsers(dest=name, required=True, metavar=name.upper())
    for action_name, action in actions.items():
        subparser = subparsers.add_parser(
            action_name,
            help=action.summary,
            description=inspect.getdoc(action.run),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        action.add_arguments(subparser)


def add_config(parser: argparse.ArgumentParser, schema: type[Section] = PretrainConfig) -> None:
    """Add --config; its fields are then set by --config.NAME=VALUE."""
    names = ", ".join(shipped_configs()) if schema is PretrainConfig else "sweep"
    parser.set_defaults(schema=schema)
    parser.add_argument("--config", required=True, help=f"shipped configuration ({names}), or path of a .py file")


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add --encoder."""
    parser.add_argument(
        "--encoder",
        required=True,
        help="name of a shipped encoder, folder of a saved encoder, workdir of `nutime pretrain`, or checkpoint",
    )


def add_features(parser: argparse.ArgumentParser, *, channels: str | None = None) -> None:
    """Add the choice of features, --layer and --pooling; with a default of --channels also that flag."""
    parser.add_argument("--layer", type=int, help="layer; 0 is before the first block (default: the last, normalised)")
    parser.add_argument("--pooling", help="cls, mean, cls+mean, or all_layers (default: the encoder's)")
    if channels:
        parser.add_argument("--channels", default=channels, help=f"mean or concat over channels (default: {channels})")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Add --dataset."""
    parser.add_argument("--dataset", required=True, help="bundled dataset, file, or folder with one dataset")


def add_data(parser: argparse.ArgumentParser, *, accepted: str = "file, bundled dataset, or folder with one dataset") -> None:
    """Add --data and --split, for input that needs no labels."""
    parser.add_argument("--data", required=True, help=accepted)
    parser.add_argument("--split", choices=("train", "test"), help="split of a dataset with two; a single file is its train split")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add flags that give roles to the columns of tables."""
    for role in ("id", "time", "label"):
        parser.add_argument(f"--{role}_column", metavar="NAME", help=f"{role} column of a table (default: by its name)")
    parser.add_argument("--value_columns", default="", metavar="NAMES", help="columns of values, separated by commas (default: the others)")


def columns_of(args: argparse.Namespace) -> "Columns":
    """Return the roles of columns that the flags of `add_columns` give."""
    from nutime_jax.data.tables import Columns

    return Columns(args.id_column, args.time_column, args.label_column, tuple(names_in(args.value_columns)))


def user_path(text: str) -> Path:
    """Return a local path; ~ is expanded."""
    if re.match(r"\w+://", text):
        raise argparse.ArgumentTypeError(f"{text} is not a local folder; mount the bucket (see launch/README.md) and pass that path")
    return Path(text).expanduser()


def run_path(text: str) -> Path:
    """Return the path of a workdir or checkpoint: local, or gs://BUCKET/FOLDER."""
    try:
        return resolve_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def names_in(text: str) -> list[str]:
    """Split a text at its commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def one_dataset(source: str, *, flag: str, columns: "Columns | None" = None) -> "DatasetFiles":
    """Return the only dataset of a source."""
    from nutime_jax.data.datasets import find_datasets
    from nutime_jax.data.tables import BY_NAME

    datasets = find_datasets(source, columns=columns or BY_NAME)
    if len(datasets) > 1:
        names = ", ".join(files.name for files in datasets[:3]) + (", …" if len(datasets) > 3 else "")
        raise InputError(f"{flag}={source} contains {len(datasets)} datasets ({names}); choose one of them")
    return datasets[0]


def choose_split(files: "DatasetFiles", split: str | None) -> str:
    """Return the split to read; a dataset with two splits needs --split."""
    if split is None and files.test is not None:
        raise InputError(f"Dataset {files.name} may have two splits; add --split=train or --split=test")
    return split or "train"
