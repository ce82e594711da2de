"""Flags that several commands share, and the parsing of their values."""

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nutime_jax.config import POOLINGS, PRECISIONS, PretrainConfig, shipped_configs
from nutime_jax.errors import InputError
from nutime_jax.options import Section
from nutime_jax.storage import resolve_path

if TYPE_CHECKING:
    from nutime_jax.data.columns import Columns
    from nutime_jax.data.datasets import DatasetFiles
    from nutime_jax.encoder import Encoder


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
        )
        action.add_arguments(subparser)


def add_config(parser: argparse.ArgumentParser, schema: type[Section] = PretrainConfig) -> None:
    """Add --config; its fields are then set by --config.NAME=VALUE."""
    names = ", ".join(shipped_configs()) if schema is PretrainConfig else "sweep"
    parser.set_defaults(schema=schema)
    parser.add_argument("--config", required=True, help=f"shipped configuration ({names}), or path of a .py file")


ENCODER_HELP = "name of a shipped encoder, folder of a saved encoder, workdir of `nutime pretrain`, checkpoint, or hf://USER/NAME"


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add --encoder, and the flags of its features."""
    parser.add_argument("--encoder", required=True, help=ENCODER_HELP)
    add_features(parser)


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add --setting, --layer, --pooling, --window_offsets, --precision and --normalise. The defaults are those of the encoder."""
    parser.add_argument("--setting", help="named setting of the encoder: fast or accurate (default: its own)")
    parser.add_argument("--layer", type=int, help="layer; 0 is before the first block (default: the last, normalised)")
    parser.add_argument("--pooling", help=f"{', '.join(POOLINGS)} (default: the encoder's)")
    parser.add_argument("--window_offsets", type=int, help="number of window offsets; cost grows linearly (default: the encoder's)")
    parser.add_argument("--precision", help=f"of float32 matmuls on TPU and GPU: {', '.join(PRECISIONS)} (default: the encoder's)")
    parser.add_argument("--normalise", help="none, or dataset: channels by mean and std over the train split (default: the encoder's)")


def add_safe_csv(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--safe_csv", action="store_true", help="in a .csv, put ' before ids and labels that a spreadsheet would execute (=, +, -, @)"
    )


def add_channels(parser: argparse.ArgumentParser, *, accepted: str = "mean or concat over channels") -> None:
    """Add --channels."""
    parser.add_argument("--channels", default="concat", help=f"{accepted} (default: concat)")


def open_encoder(args: argparse.Namespace, where: str | None = None) -> "Encoder":
    """Return the encoder of --encoder, or at another path, with the features that the flags of `add_features` choose."""
    from nutime_jax.loading import load_encoder

    encoder = load_encoder(args.encoder if where is None else where, setting=args.setting)
    options = {"precision": args.precision, "normalise": args.normalise}
    return encoder.with_options(num_window_offsets=args.window_offsets, **options)


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
    parser.add_argument(
        "--value_columns",
        default="",
        metavar="NAMES",
        help="columns of values, names or patterns as t*, separated by commas (default: the others)",
    )


def columns_of(args: argparse.Namespace) -> "Columns":
    """Return the roles of columns that the flags of `add_columns` give."""
    from nutime_jax.data.columns import Columns

    return Columns(args.id_column, args.time_column, args.label_column, tuple(names_in(args.value_columns)))


def user_path(text: str) -> Path:
    """Return a local path; ~ is expanded."""
    if re.match(r"\w+://", text):
        raise argparse.ArgumentTypeError(f"{text} is not a local folder; mount the bucket (see launch/README.md) and pass that path")
    return Path(text).expanduser()


def encoder_path(text: str) -> str | Path:
    """Return an address of the Hugging Face Hub as it is, and any other text as a local path."""
    from nutime_jax.hub import is_hub

    return text if is_hub(text) else user_path(text)


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
    from nutime_jax.data.columns import BY_NAME
    from nutime_jax.data.datasets import find_datasets

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
