"""Elements of a page: tables that scroll in a box of their own and can be sorted, paragraphs, figures, the style."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    content: markup; text goes through `html.escape` first.
    value: what a number is sorted by, NaN where there is none; None for words.
    strong: whether it is the best of its row or column.
    """

    content: str
    value: float | None = None
    strong: bool = False


def make_table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, label: str, foot: Sequence[Cell] = ()) -> str:
    """A table whose first column names the rows and stays in sight.

    Args:
        heads: markup of the headings.
        label: what a screen reader calls it.
        foot: a last row that is not sorted.
    """
    numeric = [any(row[j].value is not None for row in rows) for j in range(len(heads))]
    head = "".join(f'<th scope="col"{_class("number" * n)}>{text}</th>' for text, n in zip(heads, numeric, strict=True))
    body = "\n".join(_row(row) for row in rows)
    end = f"<tfoot>{_row(foot)}</tfoot>" if foot else ""
    table = f'<table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>{end}</table>'
    return f'<div class="box" role="region" aria-label="{escape(label)}" tabindex="0">{table}</div>'


def _row(cells: Sequence[Cell]) -> str:
    first, *rest = cells
    return f'<tr><th scope="row">{first.content}</th>{"".join(map(_cell, rest))}</tr>'


def _cell(cell: Cell) -> str:
    content = f"<b>{cell.content}</b>" if cell.strong else cell.content
    if cell.value is None:
        return f'<td class="words">{content}</td>'
    key = "" if math.isnan(cell.value) else f"{cell.value:.6g}"
    return f'<td class="number" data-key="{key}">{content}</td>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def make_name(text: str) -> str:
    """A name, escaped; a long one may break between its parts (WordSynonyms, pooling=mean) where a column is narrow."""
    parts = re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[_=/.])", text)
    return "<wbr>".join(map(escape, parts)) if len(text) > 12 else escape(text)


def make_paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def make_figure(svg: str, caption: str) -> str:
    return f'<figure><div class="box" tabindex="0">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def make_page(title: str, body: str) -> str:
    """The whole document, style and script within."""
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<head><meta charset="utf-8">{viewport}<title>{escape(title)}</title><style>{STYLE}</style></head>'
    return f'<!DOCTYPE html>\n<html lang="en">{head}\n<body>{body}\n<script>{SORT}</script></body></html>\n'


STYLE = """
:root { color-scheme: light; --ink: #1a2330; --soft: #55606e; --line: #dde3e9; --tint: #f3f6f8; --link: #0b5f7a; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--ink); background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 2px solid var(--ink); overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p, li, figcaption { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
small, figcaption { color: var(--soft); font-size: .85rem; font-weight: normal; }
.box { overflow-x: auto; max-width: 100%;  /* a shade at the right edge while more lies beyond it */
  background: linear-gradient(to left, #fff 1rem, transparent) right / 2.5rem 100% no-repeat local,
    linear-gradient(to left, #1a233030, transparent) right / .75rem 100% no-repeat scroll; }
.box:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; max-width: 11rem; line-height: 1.3; border-bottom: 2px solid var(--ink); }
th.number, td.number { text-align: right; }
td.number { white-space: nowrap; }
th:first-child { position: sticky; left: 0; background: #fff; border-right: 1px solid var(--line); }
tbody th { font-weight: normal; min-width: 14rem; max-width: 22rem; overflow-wrap: anywhere; }
td.words { min-width: 11rem; max-width: 46rem; overflow-wrap: anywhere; }
tbody tr:hover > * { background: var(--tint); }
tfoot > tr > * { font-weight: 600; border-top: 2px solid var(--ink); border-bottom: 0; }
th button { font: inherit; color: inherit; text-align: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover { text-decoration: underline; }
th[aria-sort="descending"] button::after { content: " ▾"; }
th[aria-sort="ascending"] button::after { content: " ▴"; }
summary { cursor: pointer; margin: 1rem 0 .5rem; font-weight: 600; }
figure { margin: .5rem 0 1rem; min-width: 0; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; }
.figures > figure { flex: 0 1 26rem; }
svg { display: block; height: auto; max-width: 100%; }
svg text { font-family: inherit !important; }
@media (max-width: 40rem) {
  th, td { padding: .3rem .45rem; }
  thead th { max-width: 7.5rem; }
  tbody th { min-width: 8.5rem; max-width: 9.5rem; }
}
@media print { .box { overflow: visible; } body { max-width: none; } }
"""

SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numbers;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = row => numbers ? row.cells[column].dataset.key : row.cells[column].textContent;
      const compare = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");  // what is missing comes last either way
        return (down ? -1 : 1) * (numbers ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    });
  });
}
"""
