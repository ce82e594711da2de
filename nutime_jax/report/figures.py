"""What figures share: colours, style, and how they are written."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nutime_jax.errors import InputError
from nutime_jax.storage import open_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1a2330"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINES = ("-", "--", ":", "-.")
STYLE = {
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "nutime",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def styled(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Has a figure drawn in the style of this file; says what is missing where matplotlib is."""

    @functools.wraps(draw)
    def in_style(*args: Any, **options: Any) -> "Figure":
        with _style():
            return draw(*args, **options)

    return in_style


@contextlib.contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise InputError("figures need matplotlib; pip install 'nutime_jax[report]'") from error
    with matplotlib.rc_context(STYLE):
        yield


def plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def check_figure_path(path: Path) -> None:
    """Refuses what `save_figure` could not write, before anything is computed.

    Raises:
        InputError: another suffix than .png or .svg, or no such folder.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{path} is no name of a figure; end it in .png or .svg")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.parent}; make it, or choose another")


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure as .png or .svg, byte for byte the same for the same figure; the file is at its place only when it is whole.

    Raises:
        InputError: it cannot be written there.
    """
    check_figure_path(path)
    kind = path.suffix.lower()[1:]
    try:
        with _style(), open_atomically(path) as file:
            figure.savefig(file, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None})
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another place") from error
