"""A report as one HTML page that stands alone: no file beside it, no request to anywhere, readable without scripts."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Failure
from nutime_jax.report.contents import Contents
from nutime_jax.report.markup import MISSING, Cell, make_figure, make_name, make_page, make_paragraph, make_table
from nutime_jax.report.result_figures import can_draw, draw_critical_difference, draw_scatter
from nutime_jax.report.summary import DECIMALS, Column, Standing, Table, compare_columns
from nutime_jax.storage import open_atomically

PERCENT = ("accuracy", "f1")
"""Metrics shown in percent; others as they are."""

FAMILIES = {
    "classification": "Classification",
    "fewshot": "Few-shot",
    "clustering": "Clustering",
    "anomaly": "Anomalous cases",
    "point_anomaly": "Anomalous points",
}
METRICS = {
    "f1": "F1",
    "nmi": "NMI",
    "ari": "ARI",
    "ri": "RI",
    "roc_auc": "ROC AUC",
    "auc_pr": "AUC-PR",
    "f1_adjusted": "point-adjusted F1 (not to be trusted)",
}
SPLITS = {"default": "default split", "resample": "resampled splits"}

MOST_DRAWN = 12
"""Methods in a critical-difference diagram; more cannot be read."""


def render_page(contents: Contents) -> str:
    """The page as text."""
    links = [(f"part{i}", _heading(table)) for i, (table, _) in enumerate(contents.tables)]
    links += [("failures", "Failures"), ("notes", "How to read this")]
    parts = [_part(i, table, reference, contents.rivals if i == 0 else ()) for i, (table, reference) in enumerate(contents.tables)]
    nav = " ".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in links)
    about = make_paragraph(f"From {', '.join(contents.sources)}: {_counts(contents)}.")
    header = f"<header><h1>NuTime results</h1>{about}<nav>{nav}</nav></header>"
    body = [header, "<main>", *parts, _failures(contents.failures), _notes(contents), "</main>"]
    return make_page("NuTime results", "\n".join(body))


def write_page(text: str, path: Path) -> None:
    """Write a page atomically."""
    with open_atomically(path, "w", encoding="utf-8") as file:
        file.write(text)


def _counts(contents: Contents) -> str:
    sets = {name for table, _ in contents.tables for name in table.sets}
    methods = {column.method for table, _ in contents.tables for column in table.columns if not column.published}
    return f"{_plural(len(methods), 'method')} on {_plural(len(sets), 'set')}"


def _heading(table: Table) -> str:
    return f"{FAMILIES.get(table.family, table.family.capitalize())}: {_metric(table)}, {SPLITS[table.split]}"


def _metric(table: Table) -> str:
    return METRICS.get(table.metric, table.metric)


def _part(index: int, table: Table, reference: int, rivals: Sequence[int]) -> str:
    standings = compare_columns(table, reference)
    drawn = table.family == "classification" and table.metric == "accuracy"
    return "\n".join(
        [
            f'<section id="part{index}"><h2>{escape(_heading(table))}</h2>',
            make_paragraph(_coverage(table)),
            _standings_table(table, reference, standings) if len(table.columns) > 1 else "",
            _figures(index, table, reference, standings, rivals) if drawn else "",
            f"<details{' open' if index == 0 else ''}><summary>Set by set</summary>{_sets_table(table)}</details>",
            "</section>",
        ]
    )


def _coverage(table: Table) -> str:
    """How many sets a comparison rests on, and what keeps it from resting on more."""
    common, count = int(table.common.sum()), len(table.columns)
    if count == 1:
        return f"One method on {_plural(len(table.sets), 'set')}; there is nothing to compare it with."
    every = "both methods" if count == 2 else f"all {count} methods"
    present = (~np.isnan(table.means)).sum(0)
    least = f"{table.columns[present.argmin()].label} has the fewest, {present.min()}"
    if not common:
        return f"None of {len(table.sets)} sets is common to {every}, so that they cannot be ranked; {least}."
    text = f"Means, ranks, wins and losses are over the {_plural(common, 'set')} that {every} have"
    return f"{text}." if common == len(table.sets) else f"{text}, of {len(table.sets)}; {least}."


def _standings_table(table: Table, reference: int, standings: Sequence[Standing]) -> str:
    against = escape(f"win / tie / loss against {table.columns[reference].label}")
    heads = ["method", "mean", "mean rank", against, "sets", "mean over its own sets", "repetitions"]
    best_mean, best_rank = max(round(s.mean, DECIMALS) for s in standings), min(s.rank for s in standings)
    rows = []
    for j in _by_rank(standings):
        s = standings[j]
        score = f"{s.wins} / {s.ties} / {s.losses}" if table.common.any() else MISSING
        rows.append(
            [
                Cell(_name(s.column) + _setting(s.column)),
                Cell(_show(s.mean, table.metric), s.mean, round(s.mean, DECIMALS) == best_mean),
                Cell(MISSING if math.isnan(s.rank) else f"{s.rank:.2f}", s.rank, s.rank == best_rank),
                Cell("reference" if j == reference else score, s.wins - s.losses),
                Cell(str(s.sets), s.sets),
                Cell(_show(s.mean_own, table.metric), s.mean_own),
                _repetitions(table.repetitions[:, j]),
            ]
        )
    return make_table(heads, rows, label="Means and ranks")


def _by_rank(standings: Sequence[Standing]) -> list[int]:
    """Indices, the best ranked first; as they come where there are no ranks."""
    return sorted(range(len(standings)), key=lambda j: (math.isnan(standings[j].rank), standings[j].rank, j))


def _repetitions(counts: np.ndarray) -> Cell:
    present = counts[counts > 0]
    low, high = (int(present.min()), int(present.max())) if len(present) else (0, 0)
    return Cell(str(high) if low == high else f"{low} to {high}", high)


def _sets_table(table: Table) -> str:
    rows = []
    for name, means, deviations in zip(table.sets, table.means, table.deviations, strict=True):
        best = np.nanmax(means.round(DECIMALS)) if len(means) > 1 else math.inf
        values = zip(means, deviations, strict=True)
        rows.append([Cell(make_name(name)), *(Cell(_show(m, table.metric, d), m, m.round(DECIMALS) == best) for m, d in values)])
    common = table.common
    means = table.means[common].mean(0) if common.any() else np.full(len(table.columns), np.nan)
    foot = [Cell(f"mean of {_plural(int(common.sum()), 'set')}"), *(Cell(_show(mean, table.metric), mean) for mean in means)]
    unit = "%" if table.metric in PERCENT else _metric(table)
    return make_table([f"set ({escape(unit)})", *map(_name, table.columns)], rows, label=_heading(table), foot=foot)


def _figures(index: int, table: Table, reference: int, standings: Sequence[Standing], rivals: Sequence[int]) -> str:
    if len(table.columns) < 2:
        return ""
    if not can_draw():
        return make_paragraph("Figures are left out: matplotlib is not installed; pip install 'nutime_jax[report]' brings it.")
    ranked = _by_rank(standings)
    rivals = rivals or [j for j in ranked if j != reference][:2]
    scatters = "".join(_scatter(f"scatter{index}-{j}", table, reference, j) for j in rivals)
    ranks = _critical_difference(f"ranks{index}", table, ranked)
    return f'<h3>Mean ranks</h3>{ranks}<h3>Set against set</h3><div class="figures">{scatters}</div>'


def _critical_difference(name: str, table: Table, ranked: Sequence[int]) -> str:
    drawn = list(ranked[:MOST_DRAWN])
    try:
        labels = [_mark(table.columns[j]) for j in drawn]
        svg = draw_critical_difference(table.means[table.common][:, drawn].round(DECIMALS), labels, name=name)
    except InputError as error:
        return make_paragraph(str(error))
    caption = (
        f"Mean ranks over {_plural(int(table.common.sum()), 'set')}, the best to the right. Bars join methods that do not differ "
        "significantly (pairwise one-sided Wilcoxon signed-rank tests, Holm's correction, alpha 0.1)."
    )
    if len(drawn) < len(ranked):
        caption += f" Shown are the {MOST_DRAWN} best ranked of {len(ranked)}, a choice made on these very results."
    return make_figure(svg, caption)


def _scatter(name: str, table: Table, x: int, y: int) -> str:
    both = ~np.isnan(table.means[:, [x, y]]).any(1)
    labels = (_mark(table.columns[x]), _mark(table.columns[y]))
    if not both.any():
        return make_paragraph(f"{labels[1]} and {labels[0]} have no set in common; there is nothing to draw.")
    a, b = table.means[both][:, [x, y]].round(DECIMALS).T
    names = np.array(table.sets)[both]
    wide = sorted(zip(b - a, names, strict=True), key=lambda one: -abs(one[0]))[:3]
    caption = (
        f"{labels[1]} is above {labels[0]} on {(b > a).sum()}, level on {(b == a).sum()} and below on {(b < a).sum()} of "
        f"{_plural(len(a), 'set')}. Furthest apart: {', '.join(f'{name} {100 * gap:+.1f}' for gap, name in wide)} points."
    ).replace(" -", " −")
    svg = draw_scatter(a, b, labels=labels, name=name)
    return make_figure(svg, caption)


def _failures(failures: Sequence[Failure] | None) -> str:
    if failures is None:
        text = make_paragraph("No failures.csv lies beside the results: whether a cell failed is not known here.")
    elif not failures:
        text = make_paragraph("No cell failed.")
    else:
        heads = ["cell", "why it has no number"]
        rows = [[Cell(_cell_name(one)), Cell(escape(one.message))] for one in failures]
        text = make_paragraph(f"{_plural(len(rows), 'cell')} failed.") + make_table(heads, rows, label="Failures")
    return f'<section id="failures"><h2>Failures</h2>{text}</section>'


def _cell_name(one: Failure) -> str:
    words = f"{one.method} {one.protocol} {one.setting}".split()
    return f"{make_name(one.dataset)}<br><small>{' '.join(map(make_name, words))}</small>"


def _notes(contents: Contents) -> str:
    columns = [column for table, _ in contents.tables for column in table.columns]
    notes = [
        "Accuracy and F1 are in percent; higher is better in every table; bold is the best of a row or column.",
        f"Values that agree to {DECIMALS} decimals are ties; ties share the mean of their ranks.",
        "± is the standard deviation over repetitions (seeds of an encoder, of folds or of fine-tuning, or resampled splits). "
        "A seed that changes nothing on any set is no repetition.",
    ]
    if any(table.metric == "f1_adjusted" for table, _ in contents.tables):
        notes.append(
            "Point-adjusted F1 counts a whole anomalous segment as found once one of its points raises an alarm: random scores reach "
            "values that papers report as state of the art. It stands here to be compared with theirs, and ranks nothing."
        )
    if any(column.selection == "test" for column in columns):
        notes.append("† The test split made a choice, the epoch for instance: such a number is too high, and is no fair rival.")
    if {table.split for table, _ in contents.tables} == set(SPLITS):
        notes.append("Default and resampled splits have tables of their own: they differ by more than many methods do.")
    for one in contents.published:
        unit = "percent" if one.percent else "shares from 0 to 1"
        notes.append(
            f"“published”: {', '.join(one.values)}, from {one.source}, read as {unit}; numbers of others, taken to be on default splits, "
            "under protocols that may differ from those here."
        )
    return f'<section id="notes"><h2>How to read this</h2><ul>{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul></section>'


def _name(column: Column) -> str:
    """Label with its marks, as markup."""
    badge = " <small>published</small>" if column.published else ""
    return make_name(_mark(column)) + badge


def _mark(column: Column) -> str:
    return f"{column.label} †" if column.selection == "test" else column.label


def _setting(column: Column) -> str:
    """What the label leaves out of how the method was run, as markup."""
    words = [word for word in (column.protocol, *column.setting.split()) if word not in ("baseline", "published", *column.label.split())]
    return f"<br><small>{' '.join(map(make_name, words))}</small>" if words else ""


def _show(value: float, metric: str, deviation: float = math.nan) -> str:
    if math.isnan(value):
        return MISSING
    scale, digits = (100, 1) if metric in PERCENT else (1, 3)
    spread = "" if math.isnan(deviation) else f" <small>± {scale * deviation:.{digits}f}</small>"
    return f"{scale * value:.{digits}f}{spread}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
