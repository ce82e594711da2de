"""The `nutime` command: one subcommand a file."""

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import nutime_jax
from nutime_jax.config import describe, load_config
from nutime_jax.errors import DivergenceError, InputError, PreemptedError

COMMANDS = {
    "pretrain": "pretrain an encoder on unlabelled series, and show what it is worth",
    "evaluate": "compare a pretrained encoder with its untrained twin on labelled sets",
    "sweep": "evaluate encoders and classical methods on many sets, by every protocol",
    "study": "answer one question by many small runs: scales, windows, domains, objectives",
    "report": "make one HTML page and a CSV file from tables of results",
    "finetune": "train a classifier on a labelled set, from a pretrained encoder",
    "embed": "write the features of the series of a file, however many",
    "predict": "label the series of a file with a fine-tuned classifier",
    "convert": "turn weights of the official PyTorch implementation into an encoder, and back",
    "export": "make a program of an encoder that runs without this library, on CPU, GPU and TPU",
    "plan": "say what a run takes on accelerators that are not here",
    "plot": "draw features, NME, views or training curves to a PNG or SVG file",
    "data": "look after series: say what files hold, fetch archives, build corpora",
}

RESUMED = ("pretrain", "study")
"""Commands that go on from a checkpoint."""

PREEMPTED = 75
"""Exit status of a run that was told to stop and can go on: "temporary failure" among the numbers of sysexits."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns 0, 2 for bad input, 3 for diverged training, 75 for a preemption; exits with 130 when interrupted."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for noisy in ("absl", "jax", "gcsfs"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parse(argv)
        args.run(args)
    except InputError as error:
        return _leave(_say(error, 2))
    except DivergenceError as error:
        return _leave(_say(error, 3))
    except PreemptedError as error:
        return _leave(_say(error, PREEMPTED))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _say("interrupted" + ("; the same command goes on from the last checkpoint" if argv[0] in RESUMED else ""), 130)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # threads in the middle of a write would complain; nothing half-written is ever used
    except Exception:
        if _joined():
            traceback.print_exc()
            _leave(1)
        raise
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    """Only the subcommand that is asked for is imported, so that help and errors are quick."""
    parser = argparse.ArgumentParser(
        prog="nutime",
        description="NuTime: pretrained encoders for time series of any numerical scale.",
        epilog="`nutime COMMAND --help` explains the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=nutime_jax.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        if name in argv[:1]:
            module = importlib.import_module(f"nutime_jax.cli.{name}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
            command.epilog = _describe_config(command, argv)
    args, rest = parser.parse_known_args(argv)
    prefix = "--config."
    args.overrides = [one.removeprefix(prefix) for one in rest if one.startswith(prefix) and hasattr(args, "config")]
    if unknown := [one for one in rest if not (one.startswith(prefix) and hasattr(args, "config"))]:
        parser.error(f"unknown argument {unknown[0]}; `nutime {args.command} --help` lists those there are")
    return args


def _describe_config(command: argparse.ArgumentParser, argv: list[str]) -> str | None:
    """The options of the configuration that a command line with --help names."""
    names = [flag.removeprefix("--config=") for flag in argv if flag.startswith("--config=")]
    schema = command.get_default("schema")
    if schema is None or not {"-h", "--help"} & set(argv):
        return None
    if not names:
        return "--config=NAME --help lists the options of a configuration."
    return f"options of {names[-1]}, set by --config.NAME=VALUE:\n\n{describe(load_config(names[-1], schema=schema))}"


def _joined() -> bool:
    """Whether this process is still tied to others of a run."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _leave(status: int) -> int:
    """Ends a process that fails alone at once: on its way out JAX would wait for the others, which wait for it."""
    if _joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _say(message: object, status: int) -> int:
    print(f"nutime: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
