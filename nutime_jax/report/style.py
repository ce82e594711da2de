"""The style of all figures, and how they are saved."""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nutime_jax.errors import InputError, extra
from nutime_jax.storage import open_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1a2330"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
STYLE = {
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d9dee4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "nutime",  # equal figures are equal files
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def styled(plot: Callable[..., Any]) -> Callable[..., Any]:
    """Run a plotting function in the style of this module.

    Raises:
        InputError: matplotlib is not installed.
    """

    @functools.wraps(plot)
    def in_style(*args: Any, **options: Any) -> Any:
        with _style():
            return plot(*args, **options)

    return in_style


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with extra("report"):
        import matplotlib.figure
    with matplotlib.rc_context(STYLE):
        yield


def plain(text: str) -> str:
    """Escape dollar signs, which start formulas in matplotlib."""
    return text.replace("$", r"\$")


def line_style(index: int) -> dict[str, str]:
    """Colour and dashes of the line at an index of a legend."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}


def marker_style(index: int) -> dict[str, str]:
    """Colour and shape of the marker at an index of a legend."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index // len(COLOURS) % len(MARKERS)]}


def legend_above(figure: "Figure", handles: list[Any], labels: list[str]) -> None:
    """Put one legend of at most four columns above all axes."""
    figure.legend(handles, [plain(label) for label in labels], loc="outside upper left", ncols=min(4, len(labels)))


def log_scale(axes: "Axes", name: str) -> None:
    """Make an axis ("x" or "y") logarithmic, with at most 6 ticks, to keep files small."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())


def check_figure_path(path: Path) -> None:
    """Check that a figure can be saved at a path.

    Raises:
        InputError: the suffix is not .png or .svg, or the folder does not exist.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{path} is not the name of a figure: end it in .png or .svg.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"Folder {path.parent} does not exist. Create it, or choose another path.")


def save_figure(figure: "Figure", path: Path) -> None:
    """Save a figure as .png or .svg, atomically.

    Raises:
        InputError: the path cannot be written.
    """
    check_figure_path(path)
    try:
        with open_atomically(path) as file:
            write_figure(figure, file, kind=path.suffix.lower()[1:])
    except OSError as error:
        raise InputError(f"Cannot write {path} ({error.strerror}). Choose another path.") from error


@styled
def write_figure(figure: "Figure", file: BinaryIO, *, kind: str, **options: Any) -> None:
    """Write a figure ("png" or "svg") without the date or the version of matplotlib."""
    figure.savefig(file, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None}, **options)
