"""Progress of long loops: a bar in a terminal or a notebook, lines of text elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
DELAY_SECONDS = 2.0
LINE_SECONDS = 30.0
LINE_FORMAT = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
OPEN_LINE_FORMAT = "{desc}: {n_fmt}{unit} [{elapsed}, {rate_fmt}{postfix}]"


def shows_bars() -> bool:
    """Return whether standard error is a terminal, or the output of a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class ProgressBar(tqdm):
    """A bar of tqdm whose output in a file is one line with the time per `line_seconds`, without carriage returns."""

    def __init__(self, *args, line_seconds: float = LINE_SECONDS, **options):
        self.on_terminal, self._message_written = shows_bars(), False
        if not self.on_terminal:
            # Throughput and remaining time are by what was done since the last line: the first includes compilation.
            options = {"mininterval": line_seconds, "maxinterval": line_seconds, "smoothing": 1} | options
        super().__init__(*args, dynamic_ncols=self.on_terminal, **options)

    @staticmethod
    def format_meter(*args, **options) -> str:
        return tqdm.format_meter(*args, **options).replace("s/ ", "s/")  # units begin with a space

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


def track(items: Iterable[T], *, total: int, desc: str, unit: str, shown: bool | None = None) -> Iterator[T]:
    """Yield items with a bar, which is removed at the end.

    Args:
        items: any items.
        total: their number.
        desc, unit: texts of the bar.
        shown: whether to show the bar; None shows it in a terminal or a notebook, if the loop takes DELAY_SECONDS.
    """
    visible = shows_bars() if shown is None else shown
    delay = DELAY_SECONDS if shown is None else 0
    yield from ProgressBar(items, total=total, desc=desc, unit=unit, leave=False, delay=delay, disable=not visible)
