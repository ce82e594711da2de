"""Gain of continued pretraining on own unlabelled series: an encoder before and after, on held-out labelled cases.

    python -m studies.continued --sources=FOLDER --dataset=LABELLED --out=runs/gain
    python -m studies.continued --sources=FOLDER --dataset=A,B --out=runs/gain --seeds=0,1,2 --config.steps=1000

`--sources` are the unlabelled series, `--dataset` the labelled datasets whose test splits are scored, by the probe "kernel" on
frozen features. Each seed is a run of `nutime pretrain --config=continued`; rerun the command to resume.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nutime_jax.cli.main import main
from nutime_jax.evaluation.results import read_rows


def run(argv: Sequence[str]) -> int:
    """Pretrain with every seed, evaluate all encoders in one table, and print the gain; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m studies.continued", description=__doc__, allow_abbrev=False)
    parser.add_argument("--encoder", default="nutime-small", help="encoder to start from (default: nutime-small)")
    parser.add_argument("--sources", required=True, help="unlabelled series, see data.sources")
    parser.add_argument("--dataset", required=True, help="labelled datasets with a test split, separated by commas")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="runs and results")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of the runs (default: 0,1,2)")
    args, overrides = parser.parse_known_args(argv)
    seeds = args.seeds.split(",")
    for seed in seeds:
        changes = [f"--config.seed={seed}", f"--config.data.sources={args.sources}", f"--config.data.dir={args.out / 'data'}", *overrides]
        start = ["--config=continued", f"--init_from={args.encoder}", f"--workdir={args.out / f'seed_{seed}'}"]
        if status := main(["pretrain", *start, *changes]):
            return status
    table = args.out / "results.csv"
    encoders = [f"--encoder=before={args.encoder}", *(f"--encoder=seed_{seed}={args.out / f'seed_{seed}'}" for seed in seeds)]
    if status := main(["evaluate", *encoders, f"--dataset={args.dataset}", f"--out={table}", "--overwrite"]):
        return status
    print(f"\n{describe_gain(table, [f'seed_{seed}' for seed in seeds])}")
    return 0


def describe_gain(table: Path, methods: Sequence[str]) -> str:
    """Return the mean gain of the probe "kernel" over datasets and its standard error over seeds, from a table of `nutime evaluate`."""
    rows = [row for row in read_rows(table) if (row.protocol, row.metric) == ("kernel", "accuracy")]
    means = {method: np.mean([row.value for row in rows if row.method == method]) for method in ("before", *methods)}
    gains = 100 * np.array([means[method] - means["before"] for method in methods])
    error = f", standard error {gains.std(ddof=1) / np.sqrt(len(gains)):.2f}" if len(gains) > 1 else ""
    return f"gain of {len(gains)} seeds: {gains.mean():+.2f} percentage points{error} ({', '.join(f'{gain:+.2f}' for gain in gains)})"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
