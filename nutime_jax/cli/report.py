"""Write one HTML page of results, and a CSV file of its summary.

    nutime report results.csv
    nutime report encoders.csv baselines.csv --published_table=published.csv --reference=pretrained --out=report.html
    nutime report results.csv --published_table=paper.csv:NuTime,Mantis --fetch_published=aeon:HC2 --only=ridge,minirocket

The page is one self-contained file. For every protocol and metric it shows: means, mean ranks, and wins, ties and losses
against one method, over the datasets that all methods have; a critical-difference diagram and scatter plots; every dataset
with mean and standard deviation over seeds. Values that the test split helped to choose are marked; default and resampled
splits have separate tables. If failures.csv is next to the results, its failures are listed. Needs
pip install 'nutime_jax[report]'.
"""

import argparse
from pathlib import Path

from nutime_jax.cli.arguments import names_in, user_path
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=user_path, metavar="RESULTS.csv", help="tables of results of `nutime sweep`")
    parser.add_argument(
        "--published_table",
        action="append",
        default=[],
        metavar="FILE[:METHOD,…]",
        help="published accuracies: dataset in the first column, methods in the others, fractions or percent, default split",
    )
    parser.add_argument(
        "--fetch_published", action="append", default=[], metavar="aeon:NAME", help="published results that aeon fetches, say aeon:HC2"
    )
    parser.add_argument("--reference", help="method of the wins and losses (default: the first that is not a baseline)")
    parser.add_argument("--scatter", default="", metavar="METHOD,…", help="methods plotted against it (default: the two best ranked)")
    parser.add_argument("--only", default="", metavar="TEXT,…", help="keep methods with one of these texts in name, protocol or setting")
    parser.add_argument(
        "--out", type=user_path, default=Path("report.html"), help="the page; the CSV file is next to it (default: report.html)"
    )


def run(args: argparse.Namespace) -> None:
    from nutime_jax.report.contents import gather_contents
    from nutime_jax.report.page import render_page, write_page
    from nutime_jax.report.tables import write_summary

    contents = gather_contents(
        args.results,
        published_tables=args.published_table,
        fetched=args.fetch_published,
        reference=args.reference,
        rivals=names_in(args.scatter),
        only=names_in(args.only),
    )
    if args.out.suffix == ".csv":
        raise InputError(f"--out is {args.out}, a table; write the name of the page, as report.html")
    table = args.out.with_suffix(".csv")
    text = render_page(contents)
    try:
        write_summary(contents.tables, table)
        write_page(text, args.out)
    except OSError as error:
        raise InputError(f"Cannot write {args.out} ({error.strerror}); choose another --out") from error
    print(f"written to {args.out}, its values to {table}")
