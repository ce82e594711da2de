"""The `nutime` command: one subcommand per file."""

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import IO, Any, NoReturn

import nutime_jax
from nutime_jax.config import describe, load_config
from nutime_jax.errors import DivergenceError, InputError, LostProcessError, PreemptedError, printable, shorten_quotes
from nutime_jax.options import nearest

COMMANDS = {
    "pretrain": "pretrain an encoder on unlabelled series, and evaluate it",
    "status": "print step, throughput, time left and newest checkpoint of a run",
    "evaluate": "compare encoders on labelled datasets, on test splits or by cross-validation",
    "sweep": "evaluate encoders and classical methods on many datasets, with every protocol",
    "report": "write one HTML page and a CSV file from tables of results",
    "fit": "fit a classifier on a labelled dataset: a probe, or fine-tuning of an encoder",
    "embed": "write the features of the series of a file, of any number",
    "predict": "label the series of a file with a classifier of `fit`",
    "convert": "convert weights of the official PyTorch implementation to an encoder, or back",
    "export": "export an encoder as a program that runs without this library, on CPU, GPU and TPU",
    "plan": "estimate the resources of a run on accelerators you do not have",
    "plot": "plot features, NME, views or training curves to a PNG or SVG file",
    "data": "inspect files of series, download archives, build corpora",
    "completion": "print a script that completes commands and flags in bash or zsh",
}
RESUMABLE = ("pretrain",)
"""Commands that resume from a checkpoint."""
CACHED = ("evaluate", "sweep", "fit", "embed", "predict", "convert", "export", "plot")
"""Commands that use the compilation cache from the start; `pretrain` does when its processes are connected."""
EXIT_STATUS = {InputError: 2, DivergenceError: 3, LostProcessError: LostProcessError.STATUS, PreemptedError: 75}
"""Exit status of an error whose message is the whole output; 75 is "temporary failure" in sysexits.h."""
INTERRUPTED = 130
CONFIG_PREFIX = "--config."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; without one, print the help.

    Returns:
        0, 2 for bad input, 3 for diverged training, 4 for a lost process, 75 for a preemption. An interrupt exits with 130.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_LogFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("absl", "jax", "gcsfs", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["JAX_ENABLE_X64"] = "0"
    argv = sys.argv[1:] if argv is None else list(argv)
    resumable = bool(argv) and argv[0] in RESUMABLE
    try:
        if resumable:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # kept until `initialize_distributed` receives it
        with contextlib.redirect_stdout(_PrintableStream(sys.stdout)):
            args = _parse(argv)
            if args.command in CACHED:
                from nutime_jax.compilation_cache import enable_compilation_cache

                enable_compilation_cache()
            args.run(args)
    except tuple(EXIT_STATUS) as error:
        _print_error(error)
        return _exit(next(status for kind, status in EXIT_STATUS.items() if isinstance(error, kind)))
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        resume = "; rerun the same command to resume from the last checkpoint" if resumable else ""
        _print_error(f"interrupted{resume}")
        _exit_now(INTERRUPTED)  # threads in the middle of a write would report errors; incomplete files are never used
    except Exception:
        if _is_distributed():
            traceback.print_exc()
            _exit(1)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return 0


class _LogFormatter(logging.Formatter):
    """Log lines with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(shorten_quotes(super().format(record)))


class _PrintableStream:
    """A text stream that escapes control characters."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def __init__(self, **options):
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists the arguments")

    def _check_value(self, action: argparse.Action, value: str) -> None:
        """Suggest a name for a wrong choice."""
        if action.choices is not None and value not in action.choices:
            what = action.metavar or (action.option_strings or [action.dest])[0]
            raise InputError(f"{what} {value!r} does not exist{nearest(value, action.choices)}; choose one of {', '.join(action.choices)}")


def make_parser(argv: Sequence[str] = ()) -> Parser:
    """Return the parser of all commands. Only the module of the command of `argv` is imported: help and errors stay fast."""
    parser = Parser(
        prog="nutime",
        description="NuTime: pretrained encoders for time series of any numerical scale.",
        epilog="`nutime COMMAND --help` explains the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=nutime_jax.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name in argv[:1]:
            module = importlib.import_module(f"nutime_jax.cli.{name}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
            command.epilog = _describe_config(command, argv)
    return parser


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse a command line."""
    parser = make_parser(argv)
    if not argv:
        parser.print_help()
        parser.exit()
    _check_flags(parser, argv)
    args, rest = parser.parse_known_args(argv)
    args.overrides = [text.removeprefix(CONFIG_PREFIX) for text in rest if text.startswith(CONFIG_PREFIX)]
    unknown = [text for text in rest if not text.startswith(CONFIG_PREFIX)]
    if unknown:
        raise InputError(f"unknown argument {unknown[0]}; `nutime {args.command} --help` lists all arguments")
    return args


def _check_flags(parser: Parser, argv: Sequence[str]) -> None:
    """Raise InputError for a flag that the command does not have."""
    known = list_flags(parser, argv)
    for text in argv:
        flag = text.partition("=")[0]
        of_config = flag.startswith(CONFIG_PREFIX) and "--config" in known
        if flag.startswith("--") and flag not in known and not of_config:
            raise InputError(f"unknown argument {text}{nearest(flag, known)}; `nutime {argv[0]} --help` lists all arguments")


def list_flags(parser: argparse.ArgumentParser, chosen: Iterable[str] | None = None) -> list[str]:
    """Return the flags of a parser and of its subparsers, or of those in `chosen`."""
    flags = []
    for action in parser._actions:
        flags += [flag for flag in action.option_strings if flag.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                flags += list_flags(subparser) if chosen is None or name in chosen else []
    return flags


def _describe_config(command: argparse.ArgumentParser, argv: Sequence[str]) -> str | None:
    """Return the options of the configuration of a command line with --help: of --config, or the defaults."""
    names = [flag.removeprefix("--config=") for flag in argv if flag.startswith("--config=")]
    schema = command.get_default("schema")
    if schema is None or not {"-h", "--help"} & set(argv):
        return None
    if not names:
        return f"options of a configuration and their defaults, set by --config.NAME=VALUE:\n\n{describe(schema)}"
    return f"options of {names[-1]}, set by --config.NAME=VALUE:\n\n{describe(load_config(names[-1], schema=schema))}"


def _is_distributed() -> bool:
    """Whether this process is connected to other processes of a run."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def _exit(status: int) -> int:
    """Return the status, or exit with it where JAX would first wait for processes that wait for this one."""
    if _is_distributed():
        _exit_now(status)
    return status


def _exit_now(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _print_error(message: object) -> None:
    print(f"nutime: {printable(shorten_quotes(str(message)))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
