"""Labels the series of a file with a classifier that `nutime finetune` saved.

    nutime predict --model=models/gunpoint --data=new.csv --out=labels.csv
    nutime predict --model=models/gunpoint --data=GunPoint --split=test --out=labels.csv --proba

Files are those that training reads: .npz, .ts, UCR .tsv, or .csv with a series a line. labels.csv has a line a case, in
their order: its number, from 0, its label, and with --proba the probability of every class.
"""

import argparse
import csv
from pathlib import Path

from nutime_jax.atomic import open_atomically
from nutime_jax.cli.evaluate import user_path
from nutime_jax.cli.finetune import one_set
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=user_path, help="folder that `nutime finetune` wrote")
    parser.add_argument("--data", required=True, help="a file, a bundled set, or a folder that holds one set")
    parser.add_argument("--out", required=True, type=user_path, help="CSV file of the labels")
    parser.add_argument("--split", choices=("train", "test"), help="which split of a set that has two; a lone file is its train split")
    parser.add_argument("--proba", action="store_true", help="write the probability of every class too")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.finetuning.classifier import load_classifier

    files = one_set(args.data, flag="--data")
    if args.split is None and files.test is not None:
        raise InputError(f"set {files.name} can have two splits; say which with --split=train or --split=test")
    classifier, cases = load_classifier(args.model), files.read(args.split or "train")
    probabilities = classifier.predict_proba(cases.series)
    labels = classifier.classes_[probabilities.argmax(1)]
    _write(args.out, labels, probabilities if args.proba else None, classifier.classes_)
    if cases.labels is not None:
        print(f"{100 * (labels == cases.labels).mean():.1f} % of {len(labels)} cases have the label that the file gives them")
    print(f"written to {args.out}")


def _write(path: Path, labels, probabilities, classes) -> None:
    """Write one line per case, atomically."""
    try:
        with open_atomically(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["case", "label", *([] if probabilities is None else classes)])
            for case, label in enumerate(labels):
                shares = [] if probabilities is None else [f"{share:.6g}" for share in probabilities[case]]
                writer.writerow([case, label, *shares])
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); choose another --out") from error
