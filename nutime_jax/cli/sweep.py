"""Evaluates encoders and classical methods on many sets: every protocol, setting and seed of a configuration.

    nutime sweep --config=sweep --out=results/quickstart
    nutime sweep --config=sweep --out=results/all --config.sources=archives/ucr --config.layers=all --config.protocols=ridge

The folder holds a file a cell, the features, results.csv and failures.csv. Stopped at any moment, the same command goes
on where it was; cells that are there are not computed again. Several processes may share a folder, each with its own
--shard; `nutime report` of the folder makes a page of what all of them found. Test splits choose nothing.
"""

import argparse
import re

from nutime_jax.cli.evaluate import user_path
from nutime_jax.config import SweepConfig, load_config
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(schema=SweepConfig)
    parser.add_argument("--config", required=True, help="the shipped configuration sweep, or a path to a .py file like it")
    parser.add_argument("--out", required=True, type=user_path, metavar="FOLDER", help="where cells and results go")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="compute every Nth set, from the Ith on (default: 0/1, all)")


def run(args: argparse.Namespace) -> None:
    shard = re.fullmatch(r"(\d+)/(\d+)", args.shard)
    if not shard or not int(shard[1]) < int(shard[2]):
        raise InputError(f"--shard={args.shard} is no share; write 0/4 for the first of four processes")
    config = load_config(args.config, args.overrides, schema=args.schema)
    from tqdm import tqdm

    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.data.point_anomaly import read_point_anomaly_series
    from nutime_jax.evaluation.results import FAILURES, write_failures, write_rows
    from nutime_jax.evaluation.sweep import Sweep

    index, count = int(shard[1]), int(shard[2])
    point_anomaly = [one for path in config.point_anomaly for one in read_point_anomaly_series(user_path(path))]
    sweep = Sweep(config, find_all_datasets(config.sources), args.out, point_anomaly=point_anomaly, shard=index, shards=count)
    ending = "" if count == 1 else f"_{index}_of_{count}"
    with tqdm(desc=config.name, unit=" cells") as bar:
        for at in sweep.run():
            bar.total = at.total
            bar.set_postfix_str(f"{at.dataset} {at.method}", refresh=False)
            bar.update(at.done - bar.n)
    results = args.out / f"results{ending}.csv"
    write_rows(sweep.rows, results)
    write_failures(sweep.failures, args.out / FAILURES.replace(".csv", f"{ending}.csv"))
    for one in sweep.failures:
        print(f"failed: {one.method} {one.protocol} on {one.dataset}: {one.message}")
    print(f"{len(sweep.rows)} results are in {results}")
    if not sweep.rows:
        raise InputError("every cell failed; see above")
