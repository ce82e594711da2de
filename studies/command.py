"""Command line of a study: `python -m studies.NAME --out=FOLDER [--config=FILE] [--config.FIELD=VALUE …]`."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nutime_jax.config import PretrainConfig, describe, load_config
from nutime_jax.errors import DivergenceError, InputError
from studies.report import StudyReport, format_report, write_report
from studies.variants import StudyConfig

CONFIGS = Path(__file__).parent / "configs"
PREFIX = "--config."

Study = Callable[[StudyConfig, PretrainConfig, Path], StudyReport]
"""(configuration, configuration of the pretraining that it changes, output folder) -> report."""


def run_command(study: Study, schema: type[StudyConfig], *, name: str, doc: str, argv: Sequence[str] | None = None) -> int:
    """Run a study, print its report and write it to a folder.

    Args:
        schema: class of the configuration.
        name: name of the study and of its configuration in `studies/configs/`.
        doc: help text.

    Returns:
        The exit status: 0, 2 for invalid input, 3 if training diverged, 130 if interrupted.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args, overrides = _parse(argv, schema, name=name, doc=doc)
        config = load_config(args.config, overrides, schema=schema)
        report = study(config, load_config(config.base), args.out)
        written = write_report(report, args.out)
    except (InputError, DivergenceError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 3 if isinstance(error, DivergenceError) else 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted. Rerun the same command to resume.", file=sys.stderr)
        return 130
    print(f"\n{format_report(report)}\n")
    if not any(path.suffix == ".svg" for path in written):
        print("No figure: matplotlib is not installed (pip install 'nutime_jax[report]').")
    print(f"Written to {', '.join(map(str, written))}")
    return 0


def _parse(argv: list[str], schema: type[StudyConfig], *, name: str, doc: str) -> tuple[argparse.Namespace, list[str]]:
    default = str(CONFIGS / f"{name}.py")
    parser = argparse.ArgumentParser(
        prog=f"python -m studies.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", default=default, help=f"path of a configuration (default: studies/configs/{name}.py)")
    parser.add_argument("--out", required=True, type=lambda text: Path(text).expanduser(), metavar="FOLDER", help="runs and results")
    if {"-h", "--help"} & set(argv):
        parser.epilog = f"Fields, set by {PREFIX}NAME=VALUE:\n\n{describe(load_config(default, schema=schema))}"
    args, rest = parser.parse_known_args(argv)
    if unknown := [text for text in rest if not text.startswith(PREFIX)]:
        parser.error(f"unknown argument {unknown[0]}")
    return args, [text.removeprefix(PREFIX) for text in rest]
