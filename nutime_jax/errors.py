"""What a user can mend, and what ends a run."""


class InputError(ValueError):
    """Bad input, said in one sentence that names the value and the remedy.

    The command line prints the sentence and exits with status 2; every other exception is a bug and keeps its traceback.
    """


class InputTypeError(InputError, TypeError):
    """Input of a wrong type, which scikit-learn's users catch as TypeError."""


class DivergenceError(RuntimeError):
    """Training cannot go on: loss or gradient are not finite, or the projections collapsed. The command line exits with 3."""


class PreemptedError(RuntimeError):
    """The run was told to stop, and has saved its state. The command line exits with status 75: start it again."""
