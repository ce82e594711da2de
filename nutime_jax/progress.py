"""Progress of long loops: a bar on a terminal, lines of text elsewhere."""

import sys
import time

from tqdm import tqdm

LINE_SECONDS = 30.0
LINE_FORMAT = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
OPEN_LINE_FORMAT = "{desc}: {n_fmt}{unit} [{elapsed}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):
    """A bar of tqdm whose output in a file is one line with the time per `line_seconds`, without carriage returns."""

    def __init__(self, *args, line_seconds: float = LINE_SECONDS, **options):
        self.on_terminal, self._message_written = sys.stderr.isatty(), False
        if not self.on_terminal:
            options = {"mininterval": line_seconds, "maxinterval": line_seconds} | options
        super().__init__(*args, dynamic_ncols=self.on_terminal, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        if self.on_terminal:
            return super().display(msg, pos)
        if msg != "":
            self.bar_format = LINE_FORMAT if self.total else OPEN_LINE_FORMAT
            print(time.strftime("%F %T"), msg or str(self), file=self.fp, flush=True)
        return False

    def clear(self, nolock: bool = False) -> None:
        if self.on_terminal:
            super().clear(nolock)
        self._message_written = True  # by `tqdm.write`, which clears bars before a message and refreshes them after it

    def refresh(self, nolock: bool = False, lock_args: tuple | None = None) -> None:
        if self.on_terminal or not self._message_written:
            super().refresh(nolock, lock_args)
        self._message_written = False

    def close(self) -> None:
        if self.on_terminal or self.disable:
            super().close()
            return
        self.disable = True
        self._decr_instances(self)
        if self.leave and self.n != self.last_print_n:
            self.display()
