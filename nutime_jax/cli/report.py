"""Makes one HTML page, and a CSV file of its summary, from tables of results.

    nutime report results.csv
    nutime report encoders.csv baselines.csv --published_table=published.csv --reference=pretrained --out=report.html
    nutime report results.csv --published_table=paper.csv:NuTime,Mantis --fetch_published=aeon:HC2 --only=ridge,minirocket

The page stands alone (no other file, no request) and shows, for every protocol and metric: means, mean ranks, wins, ties
and losses against one method, over the sets that all methods have; a critical-difference diagram and scatter plots (with
pip install 'nutime_jax[report]'); every set with means and deviations over seeds. Numbers that the test split helped to
choose are marked; default and resampled splits have tables of their own. Failures are listed from a failures.csv beside
the results, if there is one.
"""

import argparse
from pathlib import Path

from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.csv", help="tables of results, as the sweep writes them")
    parser.add_argument(
        "--published_table",
        action="append",
        default=[],
        metavar="FILE[:METHOD,…]",
        help="published table: the set in its first column, methods in the others (or those named), shares or percent, default split",
    )
    parser.add_argument(
        "--fetch_published", action="append", default=[], metavar="aeon:NAME", help="published results that aeon fetches, say aeon:HC2"
    )
    parser.add_argument("--reference", help="method that wins and losses are counted against (default: the first that is no baseline)")
    parser.add_argument("--scatter", default="", metavar="METHOD,…", help="methods to draw against it (default: the two best ranked)")
    parser.add_argument("--only", default="", metavar="TEXT,…", help="keep methods whose name, protocol or setting has one of these in it")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page; the CSV lies beside it (default: report.html)")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.report.contents import gather_contents
    from nutime_jax.report.page import render_page, write_page
    from nutime_jax.report.result_figures import can_draw
    from nutime_jax.report.summary import write_summary

    contents = gather_contents(
        [path.expanduser() for path in args.results],
        baselines=args.published_table,
        fetched=args.fetch_published,
        reference=args.reference,
        rivals=_names(args.scatter),
        only=_names(args.only),
    )
    page = args.out.expanduser()
    if page.suffix == ".csv":
        raise InputError(f"--out={page} is the name of a table; give the page's, as report.html, and the table lies beside it")
    table = page.with_suffix(".csv")
    try:
        write_summary(contents.tables, table)
        write_page(render_page(contents), page)
    except OSError as error:
        raise InputError(f"cannot write {page} ({error.strerror}); choose another --out") from error
    if not can_draw():
        print("without figures, since matplotlib is not installed; pip install 'nutime_jax[report]' brings it")
    print(f"written to {page}, its numbers to {table}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
