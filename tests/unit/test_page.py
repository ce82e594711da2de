import re
from html.parser import HTMLParser

import numpy as np
import pytest

from nutime_jax.errors import InputError
from nutime_jax.evaluation.results import Failure
from nutime_jax.report import page
from nutime_jax.report.contents import Contents
from nutime_jax.report.page import render_page
from nutime_jax.report.published import Published
from nutime_jax.report.result_figures import draw_critical_difference
from nutime_jax.report.summary import join_published, make_tables
from tests.unit.test_summary import row

VOID = {"meta", "br", "wbr"}


class Reader(HTMLParser):
    """Checks that elements close in order, and keeps attributes, ids and the rows of every table."""

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


def contents(rows, **changes):
    return Contents([(table, 0) for table in make_tables(rows)], ["results.csv"], **changes)


def many(methods=("A", "B", "C", "D"), sets=12, **changes):
    rng = np.random.default_rng(0)
    return [row(m, f"set{i}", v, **changes) for i in range(sets) for m, v in zip(methods, rng.uniform(0.3, 1, 4).round(3), strict=True)]


def test_a_page_stands_alone_and_is_well_formed():
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
    assert not [value for name, value in reader.attributes if name in ("src", "srcset", "data")]
    assert all(value.startswith("#") for name, value in reader.attributes if name == "href")
    assert all(one.startswith("#") for one in re.findall(r"url\(([^)]*)", text))
    assert len(reader.ids) == len(set(reader.ids))
    assert {value[1:] for name, value in reader.attributes if name == "href"} <= set(reader.ids)
    assert reader.tags.count("svg") == 6  # one of ranks and two scatter plots, for either kind of split
    assert reader.tags.count("table") == 9


def test_the_same_results_give_the_same_page():
    assert render_page(contents(many())) == render_page(contents(many()))


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onload=f()>', "a&b", "$\\frac", "模型", "{x}", "x" * 300])
def test_names_are_escaped_everywhere(evil):
    rows = [*many(("A", "B", evil, "D")), row("A", evil, 0.5, setting=evil), row("A", "x", 0.5, protocol=evil)]
    text = render_page(contents(rows, failures=[Failure(evil, evil, evil, evil, evil)]))
    reader = Reader(text)
    assert reader.tags.count("script") == 1
    assert "img" not in reader.tags
    assert any("".join(cells[0].split()) == "".join(evil.split()) for table in reader.tables for cells in table)


def test_cells_show_means_deviations_the_best_and_what_is_missing():
    rows = [row("A", "x", v, seed=i) for i, v in enumerate((0.5, 0.6, 0.7))] + [row("B", "x", 0.55), row("B", "y", 0.123456)]
    text = render_page(contents(rows))
    standings, sets = Reader(text).tables
    assert sets == [["set (%)", "A", "B"], ["x", "60.0 ± 10.0", "55.0"], ["y", "–", "12.3"], ["mean of 1 set", "60.0", "55.0"]]
    assert '<b>60.0 <small>± 10.0</small></b></td><td class="number" data-key="0.55">55.0</td>' in text
    assert standings[1][1:] == ["60.0", "1.00", "reference", "1", "60.0", "3"]
    assert standings[2][1:] == ["55.0", "2.00", "0 / 0 / 1", "2", "33.7", "1"]
    assert "over the 1 set that both methods have, of 2; A ridge has the fewest" not in text
    assert "over the 1 set that both methods have, of 2; A has the fewest, 1." in text


def test_what_the_test_split_chose_is_marked():
    rows = [*many(), *(row("tuned", f"set{i}", 0.99, selection="test") for i in range(12))]
    reader = Reader(render_page(contents(rows)))
    assert all(table[0].count("tuned †") == 1 for table in reader.tables[1:])
    assert any(cells[0].startswith("tuned †") for cells in reader.tables[0])
    assert "† The test split made a choice" in reader.words
    assert "†" not in Reader(render_page(contents(many()))).words


def test_published_columns_say_so():
    (table,) = make_tables(many())
    published = Published("paper.csv", {"Z": {"set1": 0.5}}, percent=True)
    words = Reader(render_page(Contents([(join_published(table, published.values), 0)], ["r.csv"], published=[published]))).words
    assert "“published”: Z, from paper.csv, read as percent" in words
    assert "over the 1 set that all 5 methods have, of 12; Z has the fewest, 1." in words
    assert "needs 3 methods on 5 common sets; here are 5 on 1." in words


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([row("A", "x", 0.5)], "One method on 1 set; there is nothing to compare it with."),
        (
            [row("A", "x", 0.5), row("B", "y", 0.5)],
            "None of 2 sets is common to both methods, so that they cannot be ranked; A has the fewest, 1.",
        ),
        ([row("A", "x", 0.5), row("B", "y", 0.5)], "B and A have no set in common; there is nothing to draw."),
        (many(sets=4), "A critical-difference diagram needs 3 methods on 5 common sets; here are 4 on 4."),
        ([row(m, f"s{i}", 0.5) for m in "ABC" for i in range(9)], "All methods are level on every set; there is no difference to draw."),
    ],
)
def test_what_cannot_be_compared_is_said(rows, sentence):
    assert sentence in Reader(render_page(contents(rows))).words


def test_many_methods_are_drawn_in_part():
    rows = [row(f"M{j}", f"s{i}", (i * j % 17) / 17) for j in range(14) for i in range(9)]
    words = Reader(render_page(contents(rows))).words
    assert "Shown are the 12 best ranked of 14, a choice made on these very results." in words


def test_pairs_that_are_level_everywhere_are_drawn():
    values = np.random.default_rng(0).uniform(size=(8, 3))
    values[:, 1] = values[:, 0]
    assert draw_critical_difference(values, ["a", "b", "c"], name="one").startswith('<svg role="img"')
    with pytest.raises(InputError, match="All methods are level"):
        draw_critical_difference(values[:, :1].repeat(3, 1), ["a", "b", "c"], name="one")


@pytest.mark.parametrize(
    ("failures", "sentence"), [(None, "No failures.csv lies beside"), ([], "No cell failed."), ([Failure(*"abcde")] * 2, "2 cells failed.")]
)
def test_failures_are_listed_or_said_to_be_none(failures, sentence):
    assert sentence in Reader(render_page(contents(many(), failures=failures))).words


def test_without_matplotlib_there_are_no_figures(monkeypatch):
    monkeypatch.setattr(page, "can_draw", lambda: False)
    reader = Reader(render_page(contents(many())))
    assert "svg" not in reader.tags
    assert "matplotlib is not installed; pip install 'nutime_jax[report]' brings it" in reader.words
