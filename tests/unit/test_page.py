import base64
import builtins
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Failure
from nutime_jax.report.charts import plot_critical_difference
from nutime_jax.report.contents import Published, ReportContents
from nutime_jax.report.page import render_page
from nutime_jax.report.tables import join_published, make_tables, rank_columns
from tests.unit.test_summary import row

VOID = {"meta", "br", "wbr", "img"}
SVG = "data:image/svg+xml;base64,"


class Reader(HTMLParser):
    """Check that elements close in order; collect attributes, ids, texts and the rows of every table."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes, self.tables, self.tags, self.words = [], [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if not {"style", "script"} & set(self.open):
            self.words += f"{data} "

    def values(self, name):
        return [value for key, value in self.attributes if key == name]


def contents(rows, **changes):
    return ReportContents([(table, 0) for table in make_tables(rows)], ["results.csv"], **changes)


def many(methods=("A", "B", "C", "D"), sets=12, **changes):
    rng = np.random.default_rng(0)
    return [row(m, f"set{i}", v, **changes) for i in range(sets) for m, v in zip(methods, rng.uniform(0.3, 1, 4).round(3), strict=True)]


def test_a_page_is_self_contained_and_well_formed():
    everything = [
        *many(),
        *many(split="resample 1"),
        *many(protocol="fewshot", setting="shots=5"),
        *many(protocol="anomaly", metric="auc_pr"),
    ]
    text = render_page(contents(everything, failures=[Failure("A", "x", "ridge", "", "why")]))
    reader = Reader(text)
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert not [name for name, _ in reader.attributes if name in ("srcset", "data") or name.startswith("on")]
    assert all(value.startswith("#") for value in reader.values("href"))
    assert len(reader.ids) == len(set(reader.ids))
    assert {value[1:] for value in reader.values("href")} <= set(reader.ids)
    assert len(reader.values("src")) == 6  # one of ranks and two scatter plots, for both kinds of split
    assert len(reader.values("alt")) == 6
    for source in reader.values("src"):
        assert source.startswith(SVG)
        svg = ElementTree.fromstring(base64.b64decode(source.removeprefix(SVG)))
        links = [value for node in svg.iter() for name, value in node.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)  # an image loads no other file
    assert reader.tags.count("table") == 10  # the first is the summary


def test_the_same_results_give_the_same_page():
    assert render_page(contents(many())) == render_page(contents(many()))


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        '"><img src=x onload=f()>',
        "a&b",
        "$\\frac",
        "模型",
        "{x}",
        "{{ 7 * 7 }}{% raw %}",
        "</style>",
        "x" * 300,
    ],
)
def test_names_are_escaped_everywhere(evil):
    rows = [*many(("A", "B", evil, "D")), row("A", evil, 0.5, setting=evil), row("A", "x", 0.5, protocol=evil)]
    published = Published(evil, {evil: {evil: 0.5}})
    (first, *others) = [table for table, _ in contents(rows).tables]
    tables = [(join_published(first, published.values), 0), *((table, 0) for table in others)]
    failures = [Failure(evil, evil, evil, evil, evil)]
    text = render_page(ReportContents(tables, [evil], failures, [published]))
    reader = Reader(text)
    assert reader.tags.count("script") == 1
    assert reader.tags.count("style") == 1
    assert all(source.startswith(SVG) for source in reader.values("src"))
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert any("".join(cells[0].split()) == "".join(evil.split()) for table in reader.tables for cells in table)
    assert f"From {evil}: " in reader.words


def test_cells_show_means_deviations_the_best_and_what_is_missing():
    rows = [row("A", "x", v, seed=i) for i, v in enumerate((0.5, 0.6, 0.7))] + [row("B", "x", 0.55), row("B", "y", 0.123456)]
    text = render_page(contents(rows))
    standings, datasets = Reader(text).tables
    assert datasets == [["dataset (%)", "A", "B"], ["x", "60.0 ± 10.0", "55.0"], ["y", "–", "12.3"], ["mean of 1 dataset", "60.0", "55.0"]]
    assert '<td class="number" data-key="0.6"><b>60.0 <small>± 10.0</small></b></td>' in text
    assert '<td class="number" data-key="0.55">55.0</td>' in text
    assert standings[1][1:] == ["60.0", "1.00", "reference", "–", "–", "1", "60.0", "3"]
    assert standings[2][1:] == ["55.0", "2.00", "0 / 0 / 1", "-5.0", "–", "2", "33.7", "1"]
    assert "over the 1 dataset that both methods have, of 2; A has the fewest, 1." in text


def test_a_comparison_has_an_interval_a_test_and_the_origin_of_encoders():
    a, b = np.random.default_rng(1).uniform(0.4, 0.9, (2, 9)).round(3)
    about = {"A": {"encoder": "runs/a step=9 weights=ab"}, "B": {"encoder": "nutime-small weights=cd"}}
    setting = "layer=all pooling=all_layers scaler=standard"
    rows = [row(m, f"s{i}", v, setting=setting, **about[m]) for m, values in (("A", a), ("B", b)) for i, v in enumerate(values)]
    reader = Reader(render_page(contents(rows)))
    (gap, p) = next(cells for cells in reader.tables[0] if cells[0].startswith("B"))[4:6]
    half = stats.t.ppf(0.975, 8) * np.std(b - a, ddof=1) / 3
    assert gap == f"{100 * (b - a).mean():.1f} ± {100 * half:.1f}"
    assert p == f"{stats.wilcoxon(b - a).pvalue:.2g}"
    assert f"Setting of all rows that have one: {setting}." in reader.words
    assert [cells[0] for cells in reader.tables[0][1:]] in (["Aridge", "Bridge"], ["Bridge", "Aridge"])  # no row repeats the setting
    assert reader.tables[-1][1:] == [["A", "runs/a step=9 weights=ab"], ["B", "nutime-small weights=cd"]]


def test_methods_chosen_on_the_test_split_are_marked():
    rows = [*many(), *(row("tuned", f"set{i}", 0.99, selection="test") for i in range(12))]
    reader = Reader(render_page(contents(rows)))
    assert all(table[0].count("tuned †") == 1 for table in reader.tables[1:])
    assert any(cells[0].startswith("tuned †") for cells in reader.tables[0])
    assert "† The test split made a choice" in reader.words
    assert "†" not in Reader(render_page(contents(many()))).words


def test_published_columns_are_marked():
    (table,) = make_tables(many())
    published = Published("paper.csv", {"Z": {"set1": 0.5}}, percent=True)
    words = Reader(render_page(ReportContents([(join_published(table, published.values), 0)], ["r.csv"], published=[published]))).words
    assert "“published”: Z, from paper.csv, read as percent" in words
    assert "over the 1 dataset that all 5 methods have, of 12; Z has the fewest, 1." in words
    assert "needs 3 methods on 5 common datasets; the table has 5 on 1." in words


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([row("A", "x", 0.5)], "One method on 1 dataset: there is nothing to compare it with."),
        (
            [row("A", "x", 0.5), row("B", "y", 0.5)],
            "None of 2 datasets is common to both methods, so there are no ranks; A has the fewest, 1.",
        ),
        ([row("A", "x", 0.5), row("B", "y", 0.5)], "B and A have no dataset in common: there is nothing to plot."),
        (many(sets=4), "A critical-difference diagram needs 3 methods on 5 common datasets; the table has 4 on 4."),
        (
            [row(m, f"s{i}", 0.5) for m in "ABC" for i in range(9)],
            "All methods are equal on every dataset: there is no difference to plot.",
        ),
    ],
)
def test_missing_comparisons_are_explained(rows, sentence):
    assert sentence in Reader(render_page(contents(rows))).words


@pytest.mark.slow
def test_of_many_methods_the_best_are_plotted():
    rows = [row(f"M{j}", f"s{i}", (i * j % 17) / 17) for j in range(14) for i in range(9)]
    words = Reader(render_page(contents(rows))).words
    assert "Only the 12 best of 14 methods are shown, selected on these results." in words


def test_methods_that_are_equal_on_all_datasets_are_plotted():
    values = np.random.default_rng(0).uniform(size=(8, 3))
    values[:, 1] = values[:, 0]
    figure = plot_critical_difference(values, ["a", "b", "c"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"a", "b", "c"} <= set(texts)
    ranks = rank_columns(values).mean(0)
    assert {text for text in texts if "." in text} == {f"{rank:.2f}" for rank in ranks}  # rounded as in the table
    with pytest.raises(InputError, match="All methods are equal"):
        plot_critical_difference(values[:, :1].repeat(3, 1), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("failures", "sentence"),
    [
        (None, "The results have no failures.csv"),
        ([], "No cell failed."),
        ([Failure(*"abcde")] * 2, "2 cells failed."),
    ],
)
def test_failures_are_listed(failures, sentence):
    assert sentence in Reader(render_page(contents(many(), failures=failures))).words


def test_without_jinja2_the_error_names_the_extra(monkeypatch):
    load = builtins.__import__

    def without_jinja2(name, *args, **options):
        if name == "jinja2":
            raise ModuleNotFoundError(name, name=name)
        return load(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_jinja2)
    with pytest.raises(InputError, match=r"jinja2 is not installed; pip install 'nutime_jax\[report\]'"):
        render_page(contents(many()))
