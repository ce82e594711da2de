"""Label the series of a file with a classifier that `nutime fit` saved.

    nutime predict --model=models/gunpoint --data=new.csv --out=labels.csv
    nutime predict --model=models/gunpoint --data=GunPoint --split=test --out=labels.csv --proba

Input is any file of series: a table (.csv, .parquet), .npz, .ts and others (docs/data.md). The output has one line per case, in
input order: its id, or its index from 0 in a file without ids, its label, and with --proba the probability of every class.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

from nutime_jax.cli.arguments import add_columns, add_data, add_safe_csv, choose_split, columns_of, one_dataset, user_path
from nutime_jax.errors import InputError
from nutime_jax.storage import open_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=user_path, help="folder that `nutime fit` wrote")
    add_data(parser)
    add_columns(parser)
    parser.add_argument("--out", required=True, type=user_path, help="CSV file of the labels")
    add_safe_csv(parser)
    parser.add_argument("--proba", action="store_true", help="also write the probability of every class")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.data.features import quote_formula
    from nutime_jax.finetuning.saved import load_classifier

    files = one_dataset(args.data, flag="--data", columns=columns_of(args))
    split = choose_split(files, args.split)
    classifier, cases = load_classifier(args.model), files.read(split)
    if args.proba:
        probabilities = classifier.predict_proba(cases.series)
        labels = classifier.classes_[probabilities.argmax(1)]
    else:
        labels, probabilities = classifier.predict(cases.series), None
    names = ("case", range(len(labels))) if cases.ids is None else ("id", cases.ids)
    _write(args.out, names, labels, probabilities, classifier.classes_, as_text=quote_formula if args.safe_csv else str)
    if cases.labels is not None:
        known = cases.labels != ""
        print(f"accuracy {100 * (labels == cases.labels)[known].mean():.1f} % on the {known.sum()} labels of the file")
    print(f"written to {args.out}")


def _write(path: Path, names, labels, probabilities, classes, *, as_text: Callable[[str], str]) -> None:
    """Write one line per case, atomically; `names` are a heading and the names of the cases."""
    heading, cases = names
    try:
        with open_atomically(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([heading, "label", *([] if probabilities is None else map(as_text, classes))])
            for row, (case, label) in enumerate(zip(cases, labels, strict=True)):
                columns = [] if probabilities is None else [f"{probability:.6g}" for probability in probabilities[row]]
                writer.writerow([as_text(str(case)), as_text(label), *columns])
    except OSError as error:
        raise InputError(f"Cannot write {path} ({error.strerror}); choose another --out") from error
