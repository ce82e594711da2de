"""Evaluate encoders and classical methods on many datasets: every protocol, setting and seed of a configuration.

    nutime sweep --config=sweep --out=results/quickstart
    nutime sweep --config=sweep --out=results/all --config.sources=archives/ucr --config.layers=all --config.protocols=ridge

The folder contains one file per cell, the features, results.csv and failures.csv. After an interruption, rerun the same
command to resume; finished cells are not computed again. Several processes may share a folder, each with a different
--shard; `nutime report` of the folder makes one page of all results. Test splits choose nothing.
"""

import argparse
import re
from pathlib import Path

from nutime_jax.cli.arguments import add_columns, add_config, columns_of, user_path
from nutime_jax.config import SweepConfig, load_config
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, SweepConfig)
    parser.add_argument("--out", required=True, type=user_path, metavar="FOLDER", help="folder of cells and results")
    add_columns(parser)
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="compute every Nth dataset, from the Ith (default: 0/1, all)")


def run(args: argparse.Namespace) -> None:
    index, count = _parse_shard(args.shard)
    config = load_config(args.config, args.overrides, schema=args.schema)
    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.data.point_anomaly import read_point_anomaly_series
    from nutime_jax.evaluation.results import FAILURES, write_failures, write_rows
    from nutime_jax.evaluation.sweep import Sweep
    from nutime_jax.progress import ProgressBar

    point_anomaly = [series for path in config.point_anomaly for series in read_point_anomaly_series(Path(path).expanduser())]
    sweep = Sweep(
        config,
        find_all_datasets(config.sources, columns=columns_of(args)),
        args.out,
        point_anomaly=point_anomaly,
        shard=index,
        shards=count,
    )
    with ProgressBar(desc=config.name, unit=" cells") as bar:
        for progress in sweep.run():
            bar.total = progress.total
            bar.set_postfix_str(f"{progress.dataset} {progress.method}", refresh=False)
            bar.update(progress.done - bar.n)
    suffix = "" if count == 1 else f"_{index}_of_{count}"
    results = args.out / f"results{suffix}.csv"
    write_rows(sweep.rows, results)
    write_failures(sweep.failures, args.out / FAILURES.replace(".csv", f"{suffix}.csv"))
    for failure in sweep.failures:
        print(f"failed: {failure.method} {failure.protocol} on {failure.dataset}: {failure.message}")
    print(f"{len(sweep.rows)} results are in {results}{'' if count > 1 else f'; next: nutime report {args.out}'}")
    if not sweep.rows:
        raise InputError("Every cell failed; fix the errors above and rerun the command")


def _parse_shard(text: str) -> tuple[int, int]:
    """Return index and count of a shard."""
    shard = re.fullmatch(r"(\d+)/(\d+)", text)
    if not shard or not int(shard[1]) < int(shard[2]):
        raise InputError(f"--shard is {text}; write INDEX/COUNT, as 0/4 for the first of four processes")
    return int(shard[1]), int(shard[2])
