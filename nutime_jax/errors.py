"""What a user can mend, and what ends a run."""


class InputError(ValueError):
    """Bad input, said in one sentence that names the value and the remedy.

    The command line prints the sentence and exits with status 2; every other exception is a bug and keeps its traceback.
    """


class DivergenceError(RuntimeError):
    """Training cannot go on: the loss or the gradient is not finite. The command line exits with status 3."""
