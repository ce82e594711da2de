"""Throughput of data: building a corpus, and making views of streamed, on-device and synthetic series.

    python -m benchmarks.data
    python -m benchmarks.data --sources=/archives/ucr,/archives/uea --out=benchmarks/results/data.json

Every figure is a median; rates are series (pairs of views) per second. `step` is the training step of the quickstart
configuration on a fixed batch: what the machine can consume.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.records import machine, write_results

REPEATS = 9
BATCH = 256
LENGTH = 512

BUILD = """
import resource, sys, time
from nutime_jax.data.corpus import open_corpus
start = time.perf_counter()
corpus = open_corpus(sys.argv[2:], data_dir=sys.argv[1], max_length=4096)
print(len(corpus), time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""


def build(sources: list[str], data_dir: Path) -> dict[str, float]:
    """Build a corpus in a separate process, whose peak memory is that of the build."""
    run = subprocess.run([sys.executable, "-c", BUILD, str(data_dir), *sources], capture_output=True, text=True, check=True)
    series, seconds, megabytes = map(float, run.stdout.split())
    return {"series": int(series), "seconds": seconds, "peak_mb": megabytes}


def copies(sources: list[str], count: int, folder: Path) -> list[str]:
    """Make a source that contains every file of the sources `count` times."""
    from nutime_jax.data.datasets import find_all_datasets

    for number in range(count):
        for dataset in find_all_datasets(sources):
            target = folder / f"{number}_{dataset.name.replace(chr(47), chr(95))}" / dataset.train.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(dataset.train.absolute())
    return [f"copies{count}={folder}"]


def rate(call: Callable[[int], object], series: int) -> float:
    """Return the series per second of a call, after two calls that compile and warm up."""
    import jax

    times = []
    for number in range(REPEATS + 2):
        start = time.perf_counter()
        jax.block_until_ready(call(number))
        times.append(time.perf_counter() - start)
    return series / statistics.median(times[2:])


def measure(sources: list[str]) -> dict[str, object]:
    import jax
    import numpy as np

    from nutime_jax.config import load_config
    from nutime_jax.data.corpus import open_corpus
    from nutime_jax.data.loader import class_sampling_probs, iterate_batches
    from nutime_jax.distributed.mesh import make_mesh
    from nutime_jax.synthetic import synthetic_series
    from nutime_jax.training.input_pipeline import corpus_views, make_input_pipeline, make_views
    from nutime_jax.training.program import build_program

    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        results["build"] = build(sources, folder / "once")
        results["open"] = build(sources, folder / "once")
        results["build_8_copies"] = build(copies(sources, 8, folder / "copies"), folder / "eight")
        corpus = open_corpus(sources, data_dir=folder / "once", max_length=4096)

        shares = class_sampling_probs(corpus, alpha=0.0)
        rates = results["series_per_second"] = {}
        for threads in (1, 2, 4):
            stream = iterate_batches(corpus, shares, batch_size=BATCH, seed=0, start=0, stop=100, threads=threads)
            next(stream)
            start = time.perf_counter()
            rates[f"read_and_pad_{threads}_threads"] = 99 * BATCH / (time.perf_counter() - start) if sum(1 for _ in stream) else 0

        base = [f"batch_size={BATCH}", f"data.sources={','.join(sources)}", "steps=100"]
        feeds = {
            "streamed": ["data.on_device=false"],
            "on_device": ["data.on_device=true"],
            "synthetic": ["data.synthetic_fraction=1"],
            "quarter_synthetic": ["data.synthetic_fraction=0.25", "data.on_device=false"],
        }
        for name, overrides in feeds.items():
            config = load_config("quickstart", [*base, *overrides])
            feed = make_input_pipeline(
                config.data, corpus, make_mesh(1), batch_size=config.batch_size, seed=config.seed, steps=config.steps
            )
            stream = feed.iterate(0)
            views = jax.jit(make_views(config)[0])
            rates[f"views_{name}"] = rate(lambda n, stream=stream, views=views: views(jax.random.key(n), next(stream)), BATCH)
        generate = jax.jit(synthetic_series, static_argnames=("count", "length"))
        rates["synthetic_series_alone"] = rate(lambda n: generate(jax.random.key(n), count=BATCH, length=LENGTH), BATCH)

        config = load_config("quickstart", base)
        fixed = {"series": jax.random.normal(jax.random.key(0), (BATCH, LENGTH)), "length": np.full(BATCH, LENGTH, np.int32)}
        fixed["offset"] = np.zeros(BATCH, np.float32)
        program = build_program(config, views=[partial(corpus_views, size=LENGTH, ratio=(0.5, 1.0))], mesh=make_mesh(1))
        states = [program.init()]

        def step(number: int):
            state, metrics = program.step(states.pop(), fixed)
            states.append(state)
            return metrics

        rates["step"] = rate(step, BATCH)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", default="bundled", help="as in data.sources (default: bundled)")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args()
    results = measure(args.sources.split(","))
    results["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    results["machine"] = machine("jax", "numpy", "tensorflow-datasets", "array-record", "grain")
    write_results(results, args.out)


if __name__ == "__main__":
    main()
