"""Errors that users can fix, and errors that end a run."""

import contextlib
import logging
import re
from collections.abc import Iterator

MAX_QUOTED = 80
"""Longest quotation of a value in a message."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class InputError(ValueError):
    """Bad input; one sentence names the value and the remedy.

    The command line prints the sentence and exits with status 2; every other exception is a bug and keeps its traceback.
    """


class InputTypeError(InputError, TypeError):
    """Input of a wrong type, which scikit-learn's users catch as TypeError."""


class DivergenceError(RuntimeError):
    """Diverged training: loss or gradient are not finite, or the projections collapsed. The command line exits with 3."""


class PreemptedError(RuntimeError):
    """A preempted run whose state is saved. The command line exits with status 75: rerun the command to resume."""


class LostProcessError(RuntimeError):
    """A process of a run has lost another one. The command line exits with status 4: rerun the command to resume."""

    STATUS = 4


def printable(text: str) -> str:
    """Return a text with control characters escaped, except tabs and line breaks. Names of others may command a terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shorten_quotes(message: str) -> str:
    """Return a message whose quotations have at most `MAX_QUOTED` characters; the middle of longer ones is left out."""

    def shorten(match: re.Match) -> str:
        text, half = match[1], MAX_QUOTED // 2
        return match[0] if len(text) <= MAX_QUOTED else f"'{text[: half - 1]}…{text[-half:]}'"

    return re.sub(r"(?<!\w)'([^'\n]*)'(?!\w)", shorten, message)


def first_line(error: Exception) -> str:
    """Return the text of an error without line breaks."""
    return " ".join(str(error).split())


def missing_extra(module: str, name: str) -> InputError:
    """Return the error of a module that comes with an extra of this package."""
    return InputError(f"{module} is not installed; pip install 'nutime_jax[{name}]'")


@contextlib.contextmanager
def keep_log_handlers() -> Iterator[None]:
    """Keep the handlers of the root logger; absl, which Orbax and TFDS log with, adds one where there is none."""
    handlers = logging.root.handlers[:]
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers


@contextlib.contextmanager
def extra(name: str, *modules: str) -> Iterator[None]:
    """Import modules that come with an extra of this package. The root logger keeps its handlers.

    Args:
        name: the extra.
        modules: modules of the extra; empty for all that are imported in the context.

    Raises:
        InputError: a module is not installed.
    """
    try:
        with keep_log_handlers():
            yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if modules and module not in modules:
            raise
        raise missing_extra(module, name) from error
