"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input, said in one sentence that names the value and the remedy.

    The command line prints the sentence and exits with status 2; every other exception is a bug and keeps its traceback.
    """
