"""What is in sets and corpora, on the terminal, for machines, and as a figure."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nutime_jax.data.corpus import Corpus
from nutime_jax.data.datasets import Cases, DatasetFiles
from nutime_jax.data.inspection import SetFacts, Spread, in_order, total
from nutime_jax.errors import InputError, extra

WIDTH = 100
"""Columns of a terminal."""
NAMED = 3
"""Classes that a sentence names."""
PANELS, CURVES = 24, 5
"""Classes of a figure, and series of each."""
DOTTED = 40
"""Points of a series up to which each is drawn: between missing values no line shows them."""


def format_sets(sets: Sequence[SetFacts]) -> str:
    """A sheet of one set, or a table of several with what is odd about some below."""
    return format_sheet(sets[0]) if len(sets) == 1 else format_table(sets)


def format_sheet(one: SetFacts) -> str:
    """Everything about a set, a column a split."""
    splits = one.splits.values()
    rows = [["", *one.splits], *([name, *map(show, splits)] for name, show in SHEET.items())]
    if "test" in one.splits:
        rows.append(["cases that are in train too", "", f"{one.leaked:,}"])
    head, *lines = _align(rows)
    return "\n".join([f"{one.name} ({one.format})", *_paths(one), "", head, "-" * len(head), *lines, *_below(_unknown(one))])


def _paths(one: SetFacts) -> list[str]:
    """A line a file, with the splits that it holds."""
    splits = {path: [split for split in one.files if one.files[split] == path] for path in one.files.values()}
    return [f"  {', '.join(names)}: {path}" for path, names in splits.items()]


def format_table(sets: Sequence[SetFacts]) -> str:
    """A row a set, their total, and a line for each thing that a table has no column for."""
    formats = len({one.format for one in sets}) > 1
    rows = [["set", *(["format"] if formats else []), "train", "test", "ch", "length", "classes", "missing", "log10 std", "log10 |mean|"]]
    rows += [[one.name, *([one.format] if formats else []), *_row(one)] for one in sets]
    sums = total(sets)
    rows += [[f"{len(sets)} sets", *([""] if formats else []), f"{sums['train_cases']:,}", f"{sums['test_cases']:,}"]]
    notes = [f"{one.name}, {note}" for one in sets for note in _notes(one)]
    summary = f"{sums['series']:,} series, a channel each, of {sums['values']:,} values; log10 from the least to the greatest series"
    head, *lines, last = _align(rows)
    rule = "-" * len(head)
    return "\n".join([head, rule, *lines, rule, last, summary, *_below(notes)])


def _row(one: SetFacts) -> list[str]:
    splits = list(one.splits.values())
    train, test = one.splits["train"], one.splits.get("test")
    lengths = _range(min(split.shortest for split in splits), max(split.longest for split in splits))
    classes = {label for split in splits for label in split.classes or ()}
    missing = sum(split.missing * split.values for split in splits) / sum(split.values for split in splits)
    scales = [_decades([getattr(split, name) for split in splits]) for name in ("log_std", "log_mean")]
    count = str(len(classes)) if train.classes else "–"
    return [str(train.cases), str(test.cases) if test else "–", str(train.channels), lengths, count, _percent(missing), *scales]


def _notes(one: SetFacts) -> list[str]:
    """What would surprise who trains on the set, or believes its scores."""
    notes = [f"test cases that are in train too: {one.leaked} of {one.splits['test'].cases}"] if one.leaked else []
    notes += [f"repeated {name} cases: {split.repeated} of {split.cases}" for name, split in one.splits.items() if split.repeated]
    notes += [f"constant {name} series: {split.constant} of {split.series}" for name, split in one.splits.items() if split.constant]
    return notes + _unknown(one)


def _unknown(one: SetFacts) -> list[str]:
    train, test = (one.splits[name].classes or {} if name in one.splits else {} for name in ("train", "test"))
    unknown = [label for label in test if label not in train]
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    return [f"classes of test that train does not have: {', '.join(unknown[:NAMED])}{more}"] if unknown else []


def _below(notes: list[str]) -> list[str]:
    return ["", *notes] if notes else []


SHEET = {
    "cases": lambda split: f"{split.cases:,}",
    "channels": lambda split: str(split.channels),
    "length": lambda split: _range(split.shortest, split.longest),
    "classes": lambda split: str(len(split.classes)) if split.classes else "–",
    "cases of a class": lambda split: _range(min(split.classes.values()), max(split.classes.values())) if split.classes else "–",
    "values": lambda split: f"{split.values:,}",
    "missing between known values": lambda split: _percent(split.missing),
    "padding at the ends": lambda split: _percent(split.padding),
    "log10 of std: min, median, max": lambda split: _scale(split.log_std),
    "log10 of |mean|: min, median, max": lambda split: _scale(split.log_mean),
    "constant series": lambda split: f"{split.constant:,}",
    "flat windows of 16 points": lambda split: "–" if split.flat_windows is None else _percent(split.flat_windows),
    "repeated cases": lambda split: f"{split.repeated:,}",
}


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _percent(share: float) -> str:
    """In percent; a little is not nothing."""
    return "0" if share == 0 else "<0.1%" if share < 0.001 else f"{100 * share:.1f}%"


def _scale(spread: Spread | None) -> str:
    return "–" if spread is None else "  ".join(map(_decade, (spread.min, spread.median, spread.max)))


def _decades(spreads: Sequence[Spread | None]) -> str:
    known = [spread for spread in spreads if spread]
    ends = [_decade(min(one.min for one in known)), _decade(max(one.max for one in known))] if known else ["–"]
    return " … ".join(dict.fromkeys(ends))


def _decade(log: float) -> str:
    return f"{round(log, 1) + 0.0:.1f}"  # not -0.0


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, the first to the left and as narrow as the terminal asks."""
    rows = [[*row, *[""] * (len(rows[0]) - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = max(12, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    return [
        "  ".join([_cut(row[0], widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]).rstrip() for row in rows
    ]


def _cut(text: str, width: int) -> str:
    """A name of this width; the ends tell sets apart that begin alike."""
    half = width // 2
    return text.ljust(width) if len(text) <= width else f"{text[: width - half - 1]}…{text[-half:]}"


def format_corpus(corpus: Corpus) -> str:
    """A row a part, their total, and the terms under which each may be used."""
    cards = [part.card for part in corpus.parts]
    counts = [[len(card["sets"]), sum(size for _, size in card["classes"]), len(card["classes"]), card["points"]] for card in cards]
    lengths = [_range(card["min_length"], card["max_length"]) for card in cards]
    rows = [[part.name, *map("{:,}".format, row), length] for part, row, length in zip(corpus.parts, counts, lengths, strict=True)]
    sums = [f"{len(cards)} parts", *map("{:,}".format, np.sum(counts, axis=0))]
    head, *lines, last = _align([["part", "sets", "series", "classes", "values", "length"], *rows, sums])
    rule = "-" * len(head)
    terms = [f"terms of {part.name}: {part.card['licence'].strip().splitlines()[0]}" for part in corpus.parts]
    return "\n".join([head, rule, *lines, rule, last, *_below([*terms, f"digest {corpus.digest}"])])


def write_json(sets: Sequence[SetFacts], refused: dict[str, str], path: Path) -> None:
    """Writes all facts, their total, and why the other sets cannot be read."""
    content = {"sets": [dataclasses.asdict(one) for one in sets], "total": total(sets), "refused": refused}
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another --json") from error


def draw(sets: Sequence[DatasetFiles], path: Path) -> None:
    """Draws training series: of one set a few a class, a panel each; of several one a class, a panel a set.

    Raises:
        InputError: matplotlib is not installed, or the figure cannot be written.
    """
    with extra("report"):
        from matplotlib.figure import Figure
    title, panels = _panels_of_one(sets[0]) if len(sets) == 1 else _panels_of_many(sets)
    columns = min(len(panels), max(4, math.isqrt(len(panels))))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(6, 3 * columns), 2 * rows + 0.5), layout="constrained")
    figure.suptitle(_plain(title), fontsize=10)
    for place, (name, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.set_title(_plain(name), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        for curve in curves:
            axes.plot(curve, linewidth=0.9, alpha=0.8, marker="." if len(curve) <= DOTTED else None)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path} ({error}); choose another --plot") from error


def _panels_of_one(files: DatasetFiles) -> tuple[str, dict[str, list[np.ndarray]]]:
    """A title, and the curves of each class."""
    cases = files.read_raw("train")
    classes = _by_class(cases)
    panels = {f"{label} (n = {len(curves)})".strip(): curves[:CURVES] for label, curves in list(classes.items())[:PANELS]}
    each = "" if cases.labels is None else " of each class" if len(panels) == len(classes) else f" of each of {PANELS} classes"
    channels = len(cases.series[0])
    return f"{files.name}: up to {CURVES} training series{each}" + (f", channel 1 of {channels}" if channels > 1 else ""), panels


def _panels_of_many(sets: Sequence[DatasetFiles]) -> tuple[str, dict[str, list[np.ndarray]]]:
    """A title, and for each set a curve a class."""
    classes = {one.name: _by_class(one.read_raw("train")) for one in sets}
    panels = {name: [curves[0] for curves in groups.values()][: 2 * CURVES] for name, groups in classes.items()}
    return f"a training series of each class, of {2 * CURVES} classes at most; first channels", panels


def _by_class(cases: Cases) -> dict[str, list[np.ndarray]]:
    labels = [""] * len(cases.series) if cases.labels is None else cases.labels.tolist()
    curves: dict[str, list[np.ndarray]] = {label: [] for label in in_order(labels)}
    for label, one in zip(labels, cases.series, strict=True):
        curves[label].append(one[0])
    return curves


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")
