"""Errors that users can fix, and errors that end a run."""

import contextlib
from collections.abc import Iterator


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


def missing_extra(module: str, name: str) -> InputError:
    """Return the error of a module that comes with an extra of this package."""
    return InputError(f"{module} is not installed; pip install 'nutime_jax[{name}]'")


@contextlib.contextmanager
def extra(name: str, *modules: str) -> Iterator[None]:
    """Import modules that come with an extra of this package.

    Args:
        name: the extra.
        modules: modules of the extra; empty for all that are imported in the context.

    Raises:
        InputError: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if modules and module not in modules:
            raise
        raise missing_extra(module, name) from error
