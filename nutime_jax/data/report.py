"""Text, JSON and figures of the statistics of datasets and corpora."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nutime_jax.data.corpus import Corpus
from nutime_jax.data.datasets import DatasetFiles
from nutime_jax.data.inspection import DatasetStats, SplitStats, SummaryStats, sort_labels, total
from nutime_jax.data.series import Cases
from nutime_jax.errors import InputError, extra

WIDTH = 100
"""Columns of a terminal."""
MAX_NAMES = 3
"""Classes that a line names."""
MAX_PANELS, MAX_CURVES = 24, 5
"""Classes of a figure, and series of each."""
MAX_MARKED = 40
"""Time points up to which each is marked: between missing values a line shows none."""


def format_datasets(datasets: Sequence[DatasetStats]) -> str:
    """Return the details of one dataset, or a table of several with notes below it."""
    return format_details(datasets[0]) if len(datasets) == 1 else format_table(datasets)


def format_details(dataset: DatasetStats) -> str:
    """Return all statistics of a dataset, one column per split, and the roles of the columns of its table."""
    splits = list(dataset.splits.values())
    rows = [["", *dataset.splits]]
    for name in _details(splits[0]):
        rows.append([name, *(_details(split)[name] for split in splits)])
    if "test" in dataset.splits:
        rows.append(["cases that are in train too", "", f"{dataset.leaked:,}"])
    head, *lines = align_columns(rows)
    roles = [f"column {name!r}: {role}" for name, role in splits[0].roles.items()]
    roles = roles if len(roles) <= WIDTH // 4 else _grouped_roles(splits[0].roles)
    notes = [*roles, *_step_notes(dataset), *_unknown_classes(dataset)]
    return "\n".join([f"{dataset.name} ({dataset.format})", *_paths(dataset), "", head, "-" * len(head), *lines, *_below(notes)])


def _grouped_roles(roles: dict[str, str]) -> list[str]:
    """Return one line per role of a table of many columns."""
    groups: dict[str, list[str]] = {}
    for name, role in roles.items():
        groups.setdefault(role, []).append(name)
    lines = []
    for role, names in groups.items():
        more = f" … {names[-1]!r} ({len(names)} columns)" if len(names) > MAX_NAMES else ""
        lines.append(f"{role}: {', '.join(map(repr, names[:MAX_NAMES]))}{more}")
    return lines


def _details(split: SplitStats) -> dict[str, str]:
    sizes = split.classes.values() if split.classes else ()
    details = {
        "cases": f"{split.cases:,}",
        "channels": str(split.channels),
        "length": _range(split.shortest, split.longest),
        "classes": str(len(sizes)) if sizes else "–",
        "cases of a class": _range(min(sizes), max(sizes)) if sizes else "–",
        "cases without a label": f"{split.unlabelled:,}",
        "values": f"{split.values:,}",
        "missing between known values": _percent(split.missing),
        "padding at the ends": _percent(split.padding),
        "log10 of std: min, median, max": _format_summary(split.log_std),
        "log10 of |mean|: min, median, max": _format_summary(split.log_mean),
        "constant series": f"{split.constant:,}",
        "flat windows of 16 points": "–" if split.flat_windows is None else _percent(split.flat_windows),
        "repeated cases": f"{split.repeated:,}",
    }
    return details


def _paths(dataset: DatasetStats) -> list[str]:
    """Return one line per file, with its splits."""
    splits = {path: [split for split in dataset.files if dataset.files[split] == path] for path in dataset.files.values()}
    return [f"  {', '.join(names)}: {path}" for path, names in splits.items()]


def format_table(datasets: Sequence[DatasetStats]) -> str:
    """Return one row per dataset, their total, and a line for each statistic without a column."""
    head = ["set", "format", "train", "test", "ch", "length", "classes", "missing", "log10 std", "log10 |mean|"]
    sums = total(datasets)
    last = [f"{len(datasets)} sets", "", f"{sums['train_cases']:,}", f"{sums['test_cases']:,}"]
    rows = [head, *([dataset.name, dataset.format, *_row(dataset)] for dataset in datasets), last]
    if len({dataset.format for dataset in datasets}) == 1:
        rows = [[name, *cells] for name, _, *cells in rows]
    notes = [f"{dataset.name}, {note}" for dataset in datasets for note in _notes(dataset)]
    summary = f"{sums['series']:,} series, one channel each, of {sums['values']:,} values; log10: smallest and largest over the series"
    head, *lines, last = align_columns(rows)
    rule = "-" * len(head)
    return "\n".join([head, rule, *lines, rule, last, summary, *_below(notes)])


def _row(dataset: DatasetStats) -> list[str]:
    splits = list(dataset.splits.values())
    train, test = dataset.splits["train"], dataset.splits.get("test")
    lengths = _range(min(split.shortest for split in splits), max(split.longest for split in splits))
    classes = {label for split in splits for label in split.classes or ()}
    missing = sum(split.missing * split.values for split in splits) / sum(split.values for split in splits)
    scales = [_extremes([getattr(split, name) for split in splits]) for name in ("log_std", "log_mean")]
    count = str(len(classes)) if train.classes else "–"
    return [str(train.cases), str(test.cases) if test else "–", str(train.channels), lengths, count, _percent(missing), *scales]


def _notes(dataset: DatasetStats) -> list[str]:
    """Return statistics that affect training or scores."""
    notes = []
    if dataset.leaked:
        notes.append(f"test cases that are in train too: {dataset.leaked} of {dataset.splits['test'].cases}")
    for name, split in dataset.splits.items():
        if split.repeated:
            notes.append(f"repeated {name} cases: {split.repeated} of {split.cases}")
        if split.constant:
            notes.append(f"constant {name} series: {split.constant} of {split.series}")
        if split.unlabelled:
            notes.append(f"{name} cases without a label: {split.unlabelled} of {split.cases}")
    return notes + _step_notes(dataset) + _unknown_classes(dataset)


def _step_notes(dataset: DatasetStats) -> list[str]:
    return [
        f"{name} cases with unequal time steps, whose rows follow one another: {split.unequal_steps} of {split.cases}"
        for name, split in dataset.splits.items()
        if split.unequal_steps
    ]


def _unknown_classes(dataset: DatasetStats) -> list[str]:
    train, test = (dataset.splits[name].classes or {} if name in dataset.splits else {} for name in ("train", "test"))
    unknown = [label for label in test if label not in train]
    more = f" and {len(unknown) - MAX_NAMES} more" if len(unknown) > MAX_NAMES else ""
    return [f"classes of test that train does not have: {', '.join(unknown[:MAX_NAMES])}{more}"] if unknown else []


def _below(notes: list[str]) -> list[str]:
    return ["", *notes] if notes else []


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _percent(fraction: float) -> str:
    return "0" if fraction == 0 else "<0.1%" if fraction < 0.001 else f"{100 * fraction:.1f}%"


def _format_summary(summary: SummaryStats | None) -> str:
    return "–" if summary is None else "  ".join(map(_format_log, (summary.min, summary.median, summary.max)))


def _extremes(summaries: Sequence[SummaryStats | None]) -> str:
    known = [summary for summary in summaries if summary]
    if not known:
        return "–"
    low, high = _format_log(min(summary.min for summary in known)), _format_log(max(summary.max for summary in known))
    return low if low == high else f"{low} … {high}"


def _format_log(log: float) -> str:
    return f"{round(log, 1) + 0.0:.1f}"  # not -0.0


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns; the first is left-aligned, and cut where the terminal is too narrow."""
    rows = [[*row, *[""] * (len(rows[0]) - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = max(12, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    lines = []
    for name, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([_shorten(name, widths[0]), *aligned]).rstrip())
    return lines


def _shorten(text: str, width: int) -> str:
    """Return a text of this width; both ends stay, since names often begin alike."""
    half = width // 2
    return text.ljust(width) if len(text) <= width else f"{text[: width - half - 1]}…{text[-half:]}"


def format_corpus(corpus: Corpus, shares: Mapping[str, float]) -> str:
    """Return one row per part, their total, and the terms of use of each; `shares` are fractions of samples per part."""
    cards = [part.card for part in corpus.parts]
    counts = [[len(card["sets"]), sum(size for _, size in card["classes"]), len(card["classes"]), card["points"]] for card in cards]
    lengths = [_range(card["min_length"], card["max_length"]) for card in cards]
    rows = [
        [part.name, *map("{:,}".format, row), length, f"{shares[part.name]:.1%}"]
        for part, row, length in zip(corpus.parts, counts, lengths, strict=True)
    ]
    sums = [f"{len(cards)} parts", *map("{:,}".format, np.sum(counts, axis=0))]
    head, *lines, last = align_columns([["part", "sets", "series", "classes", "values", "length", "samples"], *rows, sums])
    rule = "-" * len(head)
    terms = [f"terms of {part.name}: {part.card['licence'].strip().splitlines()[0]}" for part in corpus.parts]
    return "\n".join([head, rule, *lines, rule, last, *_below([*terms, f"digest {corpus.digest}"])])


def write_json(datasets: Sequence[DatasetStats], refused: dict[str, str], path: Path) -> None:
    """Write all statistics, their total, and the errors of datasets that cannot be read."""
    content = {"sets": [dataclasses.asdict(dataset) for dataset in datasets], "total": total(datasets), "refused": refused}
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another --json") from error


def plot_series(datasets: Sequence[DatasetFiles], path: Path) -> None:
    """Plot training series: a few per class of one dataset, a panel each; or one per class of several, a panel per dataset.

    Raises:
        InputError: matplotlib is not installed, or the figure cannot be written.
    """
    with extra("report"):
        from matplotlib.figure import Figure
    title, panels = _panels_of_one(datasets[0]) if len(datasets) == 1 else _panels_of_many(datasets)
    columns = min(len(panels), max(4, math.isqrt(len(panels))))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(6, 3 * columns), 2 * rows + 0.5), layout="constrained")
    figure.suptitle(_literal(title), fontsize=10)
    for number, (name, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.set_title(_literal(name), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        for curve in curves:
            axes.plot(curve, linewidth=0.9, alpha=0.8, marker="." if len(curve) <= MAX_MARKED else None)
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path} ({error}); choose another --plot") from error


def _panels_of_one(files: DatasetFiles) -> tuple[str, dict[str, list[np.ndarray]]]:
    """Return a title, and the curves of each class."""
    cases = files.read_raw("train")
    classes = _by_class(cases)
    panels = {f"{label} (n = {len(curves)})".strip(): curves[:MAX_CURVES] for label, curves in list(classes.items())[:MAX_PANELS]}
    each = "" if cases.labels is None else " of each class" if len(panels) == len(classes) else f" of each of {MAX_PANELS} classes"
    channels = len(cases.series[0])
    return f"{files.name}: up to {MAX_CURVES} training series{each}" + (f", channel 1 of {channels}" if channels > 1 else ""), panels


def _panels_of_many(datasets: Sequence[DatasetFiles]) -> tuple[str, dict[str, list[np.ndarray]]]:
    """Return a title, and one curve per class of each dataset."""
    classes = {files.name: _by_class(files.read_raw("train")) for files in datasets}
    panels = {name: [curves[0] for curves in groups.values()][: 2 * MAX_CURVES] for name, groups in classes.items()}
    return f"a training series of each class, of {2 * MAX_CURVES} classes at most; first channels", panels


def _by_class(cases: Cases) -> dict[str, list[np.ndarray]]:
    labels = [""] * len(cases.series) if cases.labels is None else cases.labels.tolist()
    curves: dict[str, list[np.ndarray]] = {label: [] for label in sort_labels(labels)}
    for label, case in zip(labels, cases.series, strict=True):
        curves[label].append(case[0])
    return curves


def _literal(text: str) -> str:
    """Return text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")
