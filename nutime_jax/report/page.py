"""A report as one self-contained HTML file: no other files, no requests, readable without scripts.

`template.html.j2` has the layout and all markup; jinja2 escapes every text. This module makes the tables, figures and sentences.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nutime_jax.errors import InputError, extra, printable
from nutime_jax.evaluation.results import Failure
from nutime_jax.report.charts import plot_critical_difference, plot_method_scatter, to_data_url
from nutime_jax.report.contents import ReportContents
from nutime_jax.report.tables import DECIMALS, Column, Standing, SummaryTable, compare_columns
from nutime_jax.storage import open_atomically

PERCENT = ("accuracy", "balanced_accuracy", "f1")
"""Metrics shown in percent."""
TASKS = {
    "classification": "Classification",
    "fewshot": "Few-shot",
    "clustering": "Clustering",
    "anomaly": "Anomalous cases",
    "point_anomaly": "Anomalous points",
}
METRICS = {
    "f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "nmi": "NMI",
    "ari": "ARI",
    "ri": "RI",
    "roc_auc": "ROC AUC",
    "auc_pr": "AUC-PR",
    "f1_adjusted": "point-adjusted F1 (not reliable)",
}
SPLITS = {"default": "default split", "resample": "resampled splits"}
MISSING = "–"
MAX_RANKED = 12
"""Methods in a critical-difference diagram; more are not readable."""


class HtmlCell(NamedTuple):
    """A cell of a table.

    aside, below: small text next to and below the text.
    value: sort key of a number, NaN if missing; None for text.
    strong: whether the value is the best of its row or column.
    """

    text: str
    aside: str = ""
    below: str = ""
    value: float | None = None
    strong: bool = False


class HtmlTable(NamedTuple):
    """A table whose first column names the rows. The foot is a row that is not sorted. Screen readers read the label."""

    label: str
    heads: Sequence[HtmlCell]
    rows: Sequence[Sequence[HtmlCell]]
    foot: Sequence[HtmlCell] = ()

    @property
    def numeric(self) -> list[bool]:
        return [any(row[j].value is not None for row in self.rows) for j in range(len(self.heads))]


class HtmlFigure(NamedTuple):
    """A figure (an SVG image in a URL) that shrinks with the page down to `min_width` pixels; without a URL only the caption."""

    caption: str
    url: str = ""
    alt: str = ""
    min_width: int = 0


def render_page(contents: ReportContents) -> str:
    """Return the page as text.

    Raises:
        InputError: jinja2 or matplotlib is not installed.
    """
    with extra("report"):
        import jinja2
        import markupsafe

    def breakable(text: str) -> markupsafe.Markup:
        """Escape a text, and let a long name (WordSynonyms, pooling=mean) wrap between its parts."""
        parts = re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_=/.])", text) if len(text) > 12 else [text]
        return markupsafe.Markup("<wbr>").join(parts)

    loader = jinja2.PackageLoader("nutime_jax", "report")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.finalize = lambda value: printable(value) if type(value) is str else value
    environment.filters["breakable"] = breakable
    tables = [_section(table, reference, contents.rivals if i == 0 else ()) for i, (table, reference) in enumerate(contents.tables)]
    return environment.get_template("template.html.j2").render(
        about=f"From {', '.join(contents.sources)}: {_counts(contents)}.",
        summary=_summary(contents) if len(contents.tables) > 1 else None,
        sections=tables,
        methods=_methods(contents),
        failures=_failures(contents.failures),
        notes=_notes(contents),
    )


def write_page(text: str, path: Path) -> None:
    """Write a page atomically."""
    with open_atomically(path, "w", encoding="utf-8") as file:
        file.write(text)


def _counts(contents: ReportContents) -> str:
    datasets = {name for table, _ in contents.tables for name in table.datasets}
    methods = {column.method for table, _ in contents.tables for column in table.columns if not column.published}
    return f"{_plural(len(methods), 'method')} on {_plural(len(datasets), 'dataset')}"


def _heading(table: SummaryTable) -> str:
    return f"{TASKS.get(table.task, table.task.capitalize())}: {_metric(table)}, {SPLITS[table.split]}"


def _metric(table: SummaryTable) -> str:
    return METRICS.get(table.metric, table.metric)


def _section(table: SummaryTable, reference: int, rivals: Sequence[int]) -> dict[str, Any]:
    """Return what the template shows of one table."""
    section = {"heading": _heading(table), "coverage": _coverage(table) + _shared_setting(table), "datasets": _dataset_table(table)}
    if len(table.columns) == 1:
        return section
    standings = compare_columns(table, reference)
    # Indices, best rank first; in the order of the table where there are no ranks.
    ranked = sorted(range(len(standings)), key=lambda j: (math.isnan(standings[j].rank), standings[j].rank, j))
    section["standings"] = _standings_table(table, reference, [(j, standings[j]) for j in ranked])
    if (table.task, table.metric) == ("classification", "accuracy"):
        rivals = rivals or [j for j in ranked if j != reference][:2]
        section["ranks"] = _critical_difference(table, ranked)
        section["scatters"] = [_scatter(table, reference, j) for j in rivals]
    return section


def _coverage(table: SummaryTable) -> str:
    """Say how many datasets a comparison uses, and which method limits them."""
    common, total, count = int(table.common.sum()), len(table.datasets), len(table.columns)
    if count == 1:
        return f"One method on {_plural(total, 'dataset')}: there is nothing to compare it with."
    methods = "both methods" if count == 2 else f"all {count} methods"
    present = (~np.isnan(table.means)).sum(0)
    fewest = f"{table.columns[present.argmin()].label} has the fewest, {present.min()}"
    if not common:
        return f"None of {total} datasets is common to {methods}, so there are no ranks; {fewest}."
    text = f"Means, ranks, wins and losses are over the {_plural(common, 'dataset')} that {methods} have"
    return f"{text}." if common == total else f"{text}, of {total}; {fewest}."


def _shared_words(table: SummaryTable) -> list[str]:
    """Return the words of the settings that all probes of encoders share; none for a single setting."""
    settings = [column.setting.split() for column in table.columns if column.setting]
    return [word for word in settings[0] if all(word in other for other in settings)] if len(settings) > 1 else []


def _shared_setting(table: SummaryTable) -> str:
    words = _shared_words(table)
    return f" Setting of all rows that have one: {' '.join(words)}." if words else ""


def _summary(contents: ReportContents) -> HtmlTable:
    """Return one row per table: its best method, and its reference."""
    rows = []
    for table, reference in contents.tables:
        standings = compare_columns(table, reference)
        known = [standing for standing in standings if not math.isnan(standing.mean)]
        best = max(known, key=lambda standing: standing.mean, default=None)
        rows.append(
            [
                HtmlCell(_heading(table)),
                HtmlCell(MISSING if best is None else _mark(best.column)),
                _number(math.nan if best is None else best.mean, table.metric),
                HtmlCell(_mark(table.columns[reference])),
                _number(standings[reference].mean, table.metric),
                HtmlCell(str(int(table.common.sum())), value=int(table.common.sum())),
            ]
        )
    heads = ["task and metric", "best mean", "its mean", "reference", "its mean", "common datasets"]
    return HtmlTable("Summary", [HtmlCell(head) for head in heads], rows)


def _methods(contents: ReportContents) -> HtmlTable | None:
    """Return one row per method with an encoder: path, step and commit of its run, and digest of its weights."""
    origins = {column.method: column.encoder for table, _ in contents.tables for column in table.columns if column.encoder}
    rows = [[HtmlCell(method), HtmlCell(origin)] for method, origin in origins.items()]
    return HtmlTable("Methods", [HtmlCell("method"), HtmlCell("encoder")], rows) if rows else None


def _standings_table(table: SummaryTable, reference: int, standings: Sequence[tuple[int, Standing]]) -> HtmlTable:
    name, shared = table.columns[reference].label, _shared_words(table)
    heads = ["method", "mean", "mean rank", f"win / tie / loss against {name}", f"difference from {name}", "p (Wilcoxon)"]
    heads += ["datasets", "mean over its own datasets", "repetitions"]
    best_mean = max(round(standing.mean, DECIMALS) for _, standing in standings)
    best_rank = min(standing.rank for _, standing in standings)
    rows = []
    for j, s in standings:
        score = f"{s.wins} / {s.ties} / {s.losses}" if table.common.any() else MISSING
        rank = MISSING if math.isnan(s.rank) else f"{s.rank:.2f}"
        rows.append(
            [
                _name(s.column)._replace(below=_setting(s.column, shared)),
                _number(s.mean, table.metric, strong=round(s.mean, DECIMALS) == best_mean),
                HtmlCell(rank, value=s.rank, strong=s.rank == best_rank),
                HtmlCell("reference" if j == reference else score, value=s.wins - s.losses),
                _number(s.gap, table.metric, s.interval),
                HtmlCell(MISSING if math.isnan(s.p_value) else f"{s.p_value:.2g}", value=s.p_value),
                HtmlCell(str(s.datasets), value=s.datasets),
                _number(s.mean_own, table.metric),
                _repetitions(table.repetitions[:, j]),
            ]
        )
    return HtmlTable("Means and ranks", [HtmlCell(head) for head in heads], rows)


def _repetitions(counts: np.ndarray) -> HtmlCell:
    present = counts[counts > 0]
    low, high = (int(present.min()), int(present.max())) if len(present) else (0, 0)
    return HtmlCell(str(high) if low == high else f"{low} to {high}", value=high)


def _dataset_table(table: SummaryTable) -> HtmlTable:
    rows = []
    for name, means, deviations in zip(table.datasets, table.means, table.deviations, strict=True):
        best = np.nanmax(means.round(DECIMALS)) if len(means) > 1 else math.inf
        values = zip(means, deviations, strict=True)
        cells = [_number(mean, table.metric, deviation, strong=mean.round(DECIMALS) == best) for mean, deviation in values]
        rows.append([HtmlCell(name), *cells])
    common = table.means[table.common]
    means = common.mean(0) if len(common) else np.full(len(table.columns), np.nan)
    foot = [HtmlCell(f"mean of {_plural(len(common), 'dataset')}"), *(_number(mean, table.metric) for mean in means)]
    unit = "%" if table.metric in PERCENT else _metric(table)
    return HtmlTable(_heading(table), [HtmlCell(f"dataset ({unit})"), *map(_name, table.columns)], rows, foot)


def _critical_difference(table: SummaryTable, ranked: Sequence[int]) -> HtmlFigure:
    shown = list(ranked[:MAX_RANKED])
    try:
        figure = plot_critical_difference(table.means[table.common][:, shown].round(DECIMALS), [_mark(table.columns[j]) for j in shown])
    except InputError as error:
        return HtmlFigure(str(error))
    caption = (
        f"Mean ranks over {_plural(int(table.common.sum()), 'dataset')}, the best to the right. Bars join methods without a "
        "significant difference (pairwise one-sided Wilcoxon signed-rank tests, Holm's correction, alpha 0.1)."
    )
    if len(shown) < len(ranked):
        caption += f" Only the {MAX_RANKED} best of {len(ranked)} methods are shown, selected on these results."
    return HtmlFigure(caption, to_data_url(figure), "Critical-difference diagram of mean ranks", min_width=480)


def _scatter(table: SummaryTable, x: int, y: int) -> HtmlFigure:
    both = ~np.isnan(table.means[:, [x, y]]).any(1)
    labels = (_mark(table.columns[x]), _mark(table.columns[y]))
    if not both.any():
        return HtmlFigure(f"{labels[1]} and {labels[0]} have no dataset in common: there is nothing to plot.")
    a, b = table.means[both][:, [x, y]].round(DECIMALS).T
    gaps = sorted(zip(b - a, np.array(table.datasets)[both], strict=True), key=lambda pair: -abs(pair[0]))[:3]
    largest = ", ".join(f"{name} {100 * gap:+.1f}" for gap, name in gaps)
    caption = (
        f"{labels[1]} is better than {labels[0]} on {(b > a).sum()}, equal on {(b == a).sum()} and worse on {(b < a).sum()} of "
        f"{_plural(len(a), 'dataset')}. Largest differences: {largest} percentage points."
    ).replace(" -", " −")
    figure = plot_method_scatter(a, b, labels=labels)
    return HtmlFigure(caption, to_data_url(figure), f"{labels[1]} against {labels[0]}, one point per dataset", min_width=280)


def _failures(failures: Sequence[Failure] | None) -> tuple[str, HtmlTable | None]:
    """Return a sentence, and the table of failed cells if there are any."""
    if failures is None:
        return "The results have no failures.csv: this page does not know whether a cell failed.", None
    if not failures:
        return "No cell failed.", None
    rows = [
        [HtmlCell(failure.dataset, below=f"{failure.method} {failure.protocol} {failure.setting}"), HtmlCell(failure.message)]
        for failure in failures
    ]
    return f"{_plural(len(rows), 'cell')} failed.", HtmlTable("Failures", [HtmlCell("cell"), HtmlCell("error")], rows)


def _notes(contents: ReportContents) -> list[str]:
    tables = [table for table, _ in contents.tables]
    notes = [
        "Accuracy and F1 are in percent. Higher is better in every table. Bold is the best of a row or column.",
        f"Values that agree to {DECIMALS} decimals are ties; ties share the mean of their ranks.",
        "± is the standard deviation over repetitions (seeds of an encoder, of folds or of fine-tuning, or resampled splits). "
        "Seeds that change no value on any dataset are not repetitions.",
        "A difference is the mean over the common datasets, ± half of its 95 % confidence interval (Student's t over datasets); p is "
        "that of a two-sided Wilcoxon signed-rank test, not corrected for the number of comparisons.",
    ]
    if any(table.metric == "f1_adjusted" for table in tables):
        notes.append(
            "Point-adjusted F1 counts a whole anomalous segment as found once one of its points raises an alarm: random scores reach "
            "values that papers report as state of the art. It is shown for comparison with such papers only."
        )
    if any(column.selection == "test" for table in tables for column in table.columns):
        notes.append("† The test split made a choice, for example of the epoch. Such a value is too high for a fair comparison.")
    if {table.split for table in tables} == set(SPLITS):
        notes.append("Default and resampled splits have separate tables: they differ by more than many methods do.")
    for source in contents.published:
        unit = "percent" if source.percent else "fractions from 0 to 1"
        notes.append(
            f"“published”: {', '.join(source.values)}, from {source.source}, read as {unit}. These values are taken to be on default "
            "splits; their protocols may differ from those here."
        )
    return notes


def _name(column: Column) -> HtmlCell:
    return HtmlCell(_mark(column), aside="published" if column.published else "")


def _mark(column: Column) -> str:
    return f"{column.label} †" if column.selection == "test" else column.label


def _setting(column: Column, shared: Sequence[str]) -> str:
    """Return the settings that the label omits, without those that all rows share."""
    omitted = {"baseline", "published", *column.label.split(), *shared}
    return " ".join(word for word in (column.protocol, *column.setting.split()) if word not in omitted)


def _number(value: float, metric: str, deviation: float = math.nan, *, strong: bool = False) -> HtmlCell:
    scale, digits = (100, 1) if metric in PERCENT else (1, 3)
    text = MISSING if math.isnan(value) else f"{scale * value:.{digits}f}"
    aside = "" if math.isnan(deviation) else f"± {scale * deviation:.{digits}f}"
    return HtmlCell(text, aside, value=float(value), strong=bool(strong))


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
