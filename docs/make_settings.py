"""Make the table of docs/evaluation.md that lists where the settings of an encoder may be changed, from flags and parameters.

python -m docs.make_settings
"""

import argparse
import inspect
from pathlib import Path

from docs.make_api import actions_of, parser_of
from nutime_jax import NuTimeAnomalyDetector, NuTimeClassifier, NuTimeClusterer, NuTimeTransformer
from nutime_jax.cli.main import COMMANDS
from nutime_jax.config import SweepConfig
from nutime_jax.encoder import Encoder
from nutime_jax.options import format_value, options

PAGE = Path(__file__).parent / "evaluation.md"
BEGIN, END = "<!-- made by `python -m docs.make_settings` -->\n", "<!-- end -->\n"
SETTINGS = ("setting", "layer", "pooling", "channels", "window_offsets", "input_lengths", "diff_orders", "precision", "normalise")
SWEEP = {"layer": "layers", "pooling": "poolings", "window_offsets": "num_window_offsets"}
"""Settings whose field of a sweep has another name."""
OWN = {"--channels": "concat", "channels": "concat"}
"""Defaults that are not those of the encoder, which has none."""
ESTIMATORS = (NuTimeClassifier, NuTimeTransformer, NuTimeClusterer, NuTimeAnomalyDetector)


def make_table() -> str:
    """Return the table: one row per command and class, one column per setting.

    Raises:
        ValueError: a command or class has a default of its own.
    """
    rows = {}
    for command in COMMANDS:
        parser = parser_of(command)
        for name, action in {"": parser, **actions_of(parser)}.items():
            if "--setting" in action._option_string_actions:
                rows[f"`nutime {command} {name}".rstrip() + "`"] = _of_flags(action)
    fields = {name: option.default for name, option in options(SweepConfig).items()}
    rows["`nutime sweep`, fields"] = _of_names(fields, {name: SWEEP.get(name, name) for name in SETTINGS})
    for cls in ESTIMATORS:
        rows[f"`{cls.__name__}`"] = _of_parameters(cls.__init__)
    rows["`Encoder.embed`"] = _of_parameters(Encoder.embed)
    rows["`Encoder.with_options`"] = _of_parameters(Encoder.with_options, {"window_offsets": "num_window_offsets"})
    head = ["", *(name.replace("_", " ") for name in SETTINGS)]
    lines = [head, ["---"] * len(head), *([title, *cells] for title, cells in rows.items())]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _of_flags(parser: argparse.ArgumentParser) -> list[str]:
    defaults = {flag: action.default for flag, action in parser._option_string_actions.items()}
    return _of_names(defaults, {name: f"--{name}" for name in SETTINGS})


def _of_parameters(function, names: dict[str, str] | None = None) -> list[str]:
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    return _of_names(defaults, {name: (names or {}).get(name, name) for name in SETTINGS})


def _of_names(defaults: dict, names: dict[str, str]) -> list[str]:
    cells = []
    for name in names.values():
        default = defaults.get(name)
        text = default if isinstance(default, str) else format_value(default)
        if text not in ("none", "", "encoder", "last", OWN.get(name)):
            raise ValueError(f"{name} has the default {text}, which is not that of the encoder")
        cells.append(f"`{name}`" if name in defaults else "encoder")
    return cells


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + make_table() + END + rest.partition(END)[2])
    print(f"written to docs/{PAGE.name}")
