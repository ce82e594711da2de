"""Speed on one accelerator: training by precision and batch size, embedding, and a sweep, in about ten minutes.

    python -m benchmarks.accelerator --out=benchmarks/results/accelerator.json
    python -m benchmarks.accelerator --config=smoke --batches=16 --seconds=0.2 --series=64 --out=/tmp/accelerator.json

Training: steps of a corpus in device memory (random walks of 100 to 1,000 time points), with float32 ("highest"), TF32 ("default";
bfloat16 on a TPU) and bfloat16 (`model.dtype`). Every case reports series per second, the share of the peak (MFU, where the peak is
known), the largest memory in use, and seconds to compile. The fastest case is profiled: its trace is beside the results, and the
operations that take longest are listed. Embedding includes cleaning, resizing and transfers. Cases that would begin after --minutes are
left out, but the first, and those that do not fit into memory are marked.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.records import machine, write_results

PRECISIONS = {
    "float32": ["matmul_precision=highest"],
    "TF32": ["matmul_precision=default"],
    "bfloat16": ["matmul_precision=default", "model.dtype=bfloat16"],
}
BATCHES = (1024, 4096, 16384)
CORPUS_SERIES = 20_000
WARM_UP = 3
"""Steps before a measurement."""
TOP = 12
"""Number of listed operations."""


def train(config_name: str, overrides: list[str], *, batch: int, seconds: float, trace: Path | None = None) -> dict[str, float]:
    """Return the speed of training steps.

    Args:
        seconds: minimum duration of the measurement.
        trace: folder for a profile of three further steps.
    """
    import jax

    from nutime_jax.config import load_config
    from nutime_jax.distributed.chips import chip_of
    from nutime_jax.distributed.mesh import make_mesh
    from nutime_jax.training.flops import matmul_seconds
    from nutime_jax.training.program import build_program, step_matmul_flops

    config = load_config(config_name, [f"batch_size={batch}", *overrides])
    mesh = make_mesh(1)
    corpus = random_corpus(mesh, batch=batch)
    program = build_program(config, mesh=mesh)
    state, begun = program.init(), time.perf_counter()
    for _ in range(WARM_UP):
        state, metrics = program.step(state, corpus)
    jax.block_until_ready(metrics)
    warm = time.perf_counter()
    steps = 0
    while steps < 2 or time.perf_counter() - warm < seconds:
        state, metrics = program.step(state, corpus)
        steps += 1
        if steps % 2 == 0:  # the host runs at most two steps ahead
            jax.block_until_ready(metrics)
    jax.block_until_ready(metrics)
    step_s = (time.perf_counter() - warm) / steps
    found = {
        "batch_size": batch,
        "series_per_second": batch / step_s,
        "step_ms": 1e3 * step_s,
        "steps": steps,
        "loss": float(metrics["loss"]),
    }
    found["compile_s"] = warm - begun - WARM_UP * step_s
    if memory := mesh.devices.flat[0].memory_stats():
        found["peak_memory_gb"] = memory["peak_bytes_in_use"] / 1e9
    if chip := chip_of(mesh.devices.flat[0].device_kind):
        found["mfu"] = matmul_seconds(step_matmul_flops(config, mesh=mesh, batch=corpus), chip) / step_s
    if trace is not None:
        with jax.profiler.trace(str(trace)):
            for _ in range(3):
                state, metrics = program.step(state, corpus)
            jax.block_until_ready(metrics)
    return found


def random_corpus(mesh: Any, *, batch: int) -> dict[str, Any]:
    """Return a batch of random walks, of a corpus in device memory."""
    import jax
    import numpy as np

    from nutime_jax.data.device_corpus import pack_series
    from nutime_jax.distributed.mesh import replicated_sharding, shard_tree

    random = np.random.default_rng(0)
    lengths = random.integers(100, 1001, CORPUS_SERIES)
    series = ((random.normal(size=length).cumsum().astype(np.float32), 0.0) for length in lengths)
    packed = pack_series(series, num_points=int(lengths.sum()), num_series=CORPUS_SERIES)
    arrays = {"index": random.integers(0, CORPUS_SERIES, batch, np.int32), "corpus": packed}
    return shard_tree(arrays, jax.tree.map(lambda _: replicated_sharding(mesh), arrays))


def top_operations(trace: Path) -> list[dict[str, float]]:
    """Return the operations of a trace that take longest: milliseconds and share of the busy time of the device."""
    (file,) = trace.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    processes = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    devices = {pid for pid, name in processes.items() if name.startswith("/device:")} or set(processes)
    durations = Counter()
    for event in events:
        if event.get("ph") == "X" and event["pid"] in devices and "hlo_op" in event.get("args", {}):
            durations[event["name"]] += event["dur"] / 1e3
    total = sum(durations.values())
    return [{"operation": name, "ms": ms, "share": ms / total} for name, ms in durations.most_common(TOP)]


def embed(config_name: str, *, series: int, batch_size: int) -> dict[str, float]:
    """Return the speed of `Encoder.embed`, on series of equal and of different lengths."""
    import numpy as np

    from nutime_jax.config import load_config
    from nutime_jax.loading import untrained_encoder

    encoder, random = untrained_encoder(load_config(config_name)), np.random.default_rng(1)
    equal = random.normal(size=(series, 512)).cumsum(-1).astype(np.float32)
    ragged = [row[: random.integers(50, 513)] for row in equal]
    rates = {}
    for name, inputs in {"length 512": equal, "lengths 50 to 512": ragged}.items():
        encoder.embed(inputs[:batch_size], batch_size=batch_size)
        begun = time.perf_counter()
        encoder.embed(inputs, batch_size=batch_size)
        rates[name] = series / (time.perf_counter() - begun)
    return {"batch_size": batch_size, "series": series, **rates}


def sweep(config_name: str, datasets: str) -> dict[str, float]:
    """Return the seconds of a sweep of an untrained encoder, with the protocols ridge and knn."""
    from nutime_jax.config import SweepConfig, load_config
    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.evaluation.sweep import Sweep
    from nutime_jax.loading import untrained_encoder

    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        untrained_encoder(load_config(config_name)).save(Path(folder) / "encoder")
        overrides = [f"encoders=untrained={folder}/encoder", "baselines=", "protocols=ridge,knn", f"sources={datasets}"]
        run = Sweep(load_config("sweep", overrides, schema=SweepConfig), find_all_datasets(datasets.split(",")), Path(folder) / "results")
        cells = sum(1 for _ in run.run())
    return {"cells": cells, "seconds": time.perf_counter() - begun}


def render(results: dict) -> str:
    """Return the results as Markdown tables."""
    lines = ["| precision | batch | series/s | step, ms | MFU | memory, GB | compile, s |", "|---|---|---|---|---|---|---|"]
    for name, found in results["training"].items():
        precision, batch = name.split(", batch ")
        if "failed" in found:
            lines.append(f"| {precision} | {batch} | {found['failed']} | | | | |")
            continue
        mfu = f"{found['mfu']:.1%}" if "mfu" in found else "–"
        memory = f"{found['peak_memory_gb']:.1f}" if "peak_memory_gb" in found else "–"
        values = f"{found['series_per_second']:,.0f} | {found['step_ms']:.1f} | {mfu} | {memory} | {found['compile_s']:.0f}"
        lines.append(f"| {precision} | {batch} | {values} |")
    lines += ["", f"| operation ({results['profiled']}) | ms in three steps | share |", "|---|---|---|"]
    lines += [f"| `{row['operation']}` | {row['ms']:.2f} | {row['share']:.1%} |" for row in results["operations"]]
    for part in ("embedding", "sweep"):
        if part in results:
            lines += ["", f"{part}: " + ", ".join(f"{name} {value:,.1f}" for name, value in results[part].items())]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="nutime_paper")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="batch sizes of training")
    parser.add_argument("--seconds", type=float, default=5, help="duration of each measurement")
    parser.add_argument("--series", type=int, default=100_000, help="number of embedded series")
    parser.add_argument("--datasets", default="bundled", help="datasets of the sweep")
    parser.add_argument("--minutes", type=float, default=9, help="no case but the first begins later")
    parser.add_argument("--out", type=Path, required=True, help="file for the results; a profile and a table are written beside it")
    args = parser.parse_args()
    import jax

    from nutime_jax.data.datasets import find_all_datasets

    find_all_datasets(args.datasets.split(","))  # a wrong name fails before minutes of training
    deadline = time.monotonic() + 60 * args.minutes
    device = jax.devices()[0]
    results: dict[str, Any] = {"device": device.device_kind, "machine": machine("jax", "jaxlib", "flax"), "training": {}}
    cases = [(name, int(batch)) for batch in args.batches.split(",") for name in PRECISIONS]
    for name, batch in cases:
        if results["training"] and time.monotonic() > deadline:
            break
        try:
            found = train(args.config, PRECISIONS[name], batch=batch, seconds=args.seconds)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            found = {"failed": "does not fit into memory"}
        results["training"][f"{name}, batch {batch}"] = found
        print(f"{name}, batch {batch}: {found}", flush=True)
    best = max(results["training"], key=lambda name: results["training"][name].get("series_per_second", 0))
    precision, batch = best.split(", batch ")
    trace = args.out.with_suffix(".profile")
    train(args.config, PRECISIONS[precision], batch=int(batch), seconds=0, trace=trace)
    results |= {"profiled": best, "operations": top_operations(trace)}
    if time.monotonic() < deadline:
        results["embedding"] = embed(args.config, series=args.series, batch_size=min(4096, args.series))
    if time.monotonic() < deadline:
        results["sweep"] = sweep(args.config, args.datasets)
    write_results(results, args.out)
    table = render(results)
    args.out.with_suffix(".md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
