"""Embedding by Ray or Spark on this machine, compared with `nutime embed` in one process on the same cores.

    python -m benchmarks.cluster --engine=ray --series=20000 --rounds=3
    python -m benchmarks.cluster --engine=ray --series=200000 --rounds=1 --kill_after=60 --out=benchmarks/results/cluster.json
    python -m benchmarks.cluster --engine=spark --series=20000 --rounds=1

Random walks of 512 time points in wide Parquet files of 10,000 rows and groups of 2,048; two workers; features to Parquet. The
engine and the one process run in turn. CPU time is that of all processes, also those of the engine, sampled every half second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil

from benchmarks.records import machine, write_results

ROWS_PER_FILE, ROWS_PER_GROUP, LENGTH, WORKERS = 10_000, 2_048, 512, 2
RAY = """
import sys, ray
from nutime_jax import distributed_embed
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
distributed_embed(sys.argv[1], sys.argv[2], sys.argv[3], workers=2)
"""
SPARK = """
import sys
from functools import partial
import numpy as np
from pyspark.sql import SparkSession
from nutime_jax import load_encoder
from nutime_jax.cluster import embed_frames
builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
spark = builder.config("spark.driver.memory", "4g").config("spark.hadoop.parquet.enable.dictionary", "false").getOrCreate()
width = load_encoder(sys.argv[1]).embed(np.zeros((1, 512), np.float32)).shape[1]
schema = "id string, " + ", ".join(f"f{i} float" for i in range(width))
spark.read.parquet(sys.argv[2]).mapInPandas(partial(embed_frames, encoder=sys.argv[1]), schema).write.parquet(sys.argv[3])
"""


class Usage(NamedTuple):
    """Seconds, CPU seconds of all processes, and peak memory (RSS) of the processes that embed, in GiB."""

    seconds: float
    cpu_seconds: float
    memory_gib: float
    killed: bool = False


def watch(command: Sequence[str], *, is_worker: Callable[[psutil.Process], bool], kill_after: float = 0) -> Usage:
    """Run a command; after `kill_after` seconds kill one of its workers."""
    began, cpu, memory, killed = time.monotonic(), {}, 0, False
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        workers = []
        for child in [parent, *parent.children(recursive=True)]:
            try:
                times = child.cpu_times()
                cpu[child.pid, child.create_time()] = times.user + times.system
                workers += [child] if is_worker(child) else []
            except psutil.Error:  # it has ended
                continue
        memory = max(memory, sum(worker.memory_info().rss for worker in workers if worker.is_running()))
        if kill_after and not killed and workers and time.monotonic() - began > kill_after:
            workers[0].kill()
            killed = True
        time.sleep(0.5)
    if process.returncode:
        raise RuntimeError(process.stderr.read()[-3000:])
    return Usage(time.monotonic() - began, sum(cpu.values()), memory / 2**30, killed)


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    # Ray gives its workers a niceness of 15: on a machine with other work they would get less of it than the one process.
    engine = {
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "PYSPARK_PYTHON": sys.executable,
    }
    return {**os.environ, "PYTHONPATH": root, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", **engine}


def write_series(folder: Path, count: int) -> list[Path]:
    """Write random walks with ids."""
    folder.mkdir()
    draw, paths = np.random.default_rng(0), []
    for first in range(0, count, ROWS_PER_FILE):
        rows = min(ROWS_PER_FILE, count - first)
        values = draw.normal(size=(rows, LENGTH)).cumsum(1).astype(np.float32)
        paths.append(folder / f"{first:08d}.parquet")
        frame = pd.DataFrame(values).rename(columns=str).assign(series_id=[f"s{first + i}" for i in range(rows)])
        frame.to_parquet(paths[-1], row_group_size=ROWS_PER_GROUP)
    return paths


def embed_on_engine(engine: str, encoder: str, source: Path, out: Path, *, kill_after: float) -> Usage:
    names = {"ray": ("MapWorker",), "spark": ("pyspark.daemon", "pyspark/daemon")}[engine]

    def is_worker(process: psutil.Process) -> bool:
        line = " ".join(process.cmdline())
        return any(name in line for name in names)

    command = [sys.executable, "-c", {"ray": RAY, "spark": SPARK}[engine], encoder, str(source), str(out)]
    return watch(command, is_worker=is_worker, kill_after=kill_after)


def embed_in_one_process(encoder: str, paths: Sequence[Path], folder: Path) -> Usage:
    """Run `nutime embed` for each file."""
    folder.mkdir()
    usages = []
    for path in paths:
        arguments = ["embed", f"--encoder={encoder}", f"--data={path}", f"--out={folder / path.name}"]
        usages.append(watch([sys.executable, "-m", "nutime_jax.cli.main", *arguments], is_worker=lambda process: True))
    return Usage(sum(usage.seconds for usage in usages), sum(usage.cpu_seconds for usage in usages), max(u.memory_gib for u in usages))


def difference(ours: Path, theirs: Path, count: int) -> float:
    """Return the largest difference of the features of ids that both have; ours has to have `count` ids, each once."""
    b = pd.concat(pd.read_parquet(path) for path in sorted(theirs.glob("*.parquet"))).set_index("id").sort_index()
    ids, parts = [], []
    for path in ours.glob("*.parquet"):
        frame = pd.read_parquet(path).set_index("id")
        ids += frame.index.tolist()
        parts.append(frame[frame.index.isin(b.index)])
    a = pd.concat(parts).sort_index()
    if not len(ids) == len(set(ids)) == count or not a.index.equals(b.index):
        raise RuntimeError(f"{len(ids)} features of {len(set(ids))} of {count} series")
    return float(np.abs(a.to_numpy() - b.to_numpy()).max())


def measure(engine: str, encoder: str, *, series: int, rounds: int, kill_after: float, alone: bool) -> dict:
    pairs: list[tuple[Usage, Usage]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = write_series(folder / "in", series)
        for number in range(rounds):
            ours, one = folder / f"engine-{number}", folder / f"one-{number}"
            usage = embed_on_engine(engine, encoder, folder / "in", ours, kill_after=kill_after)
            pairs.append((usage, embed_in_one_process(encoder, paths if alone else paths[:1], one)))
            print(pairs[-1], flush=True)
        apart = difference(ours, one, series)
    rows = [min(series, ROWS_PER_FILE) if not alone else series for _ in pairs]
    medians = {f"{engine}_{name}": statistics.median(getattr(usage, name) for usage, _ in pairs) for name in Usage._fields[:3]}
    medians |= {f"one_process_{name}": statistics.median(getattr(usage, name) for _, usage in pairs) for name in Usage._fields[:3]}
    ratios = {
        name: statistics.median(
            getattr(one, name) / count / (getattr(usage, name) / series) for (usage, one), count in zip(pairs, rows, strict=True)
        )
        for name in ("seconds", "cpu_seconds")
    }
    figures = {"series": series, "rounds": rounds, "one_process_series": rows[0], "killed": pairs[0][0].killed, **medians}
    return {**figures, "throughput_ratio": ratios["seconds"], "cpu_ratio": ratios["cpu_seconds"], "largest_difference": apart}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="ray", choices=["ray", "spark"], help="(default: ray)")
    parser.add_argument("--encoder", default="nutime-small", help="(default: nutime-small)")
    parser.add_argument("--series", type=int, default=20_000, help="number of series (default: 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="number of pairs (default: 3)")
    parser.add_argument("--kill_after", type=float, default=0, help="kill a worker after N seconds; 0 is never (default: 0)")
    parser.add_argument("--first_file", action="store_true", help="the one process embeds the first file only")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON; results of other runs are kept")
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    options = {"series": args.series, "rounds": args.rounds, "kill_after": args.kill_after, "alone": not args.first_file}
    figures = measure(args.engine, args.encoder, **options)
    name = f"{args.engine}, {args.series} series" + (", a worker killed" if args.kill_after else "")
    write_results({**results, name: figures | machine("jax")}, args.out)


if __name__ == "__main__":
    main()
