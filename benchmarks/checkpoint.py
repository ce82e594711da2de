"""Cost of checkpoints: time for which the loop stops, and slowdown of the steps during the asynchronous write.

    python -m benchmarks.checkpoint
    python -m benchmarks.checkpoint --steps=100 --rounds=3 --out=benchmarks/results/checkpoint.json

The real step of a configuration runs on a fixed batch, with a checkpoint after every `steps` steps. `stall` is the time
inside `save`, `behind` the time until the checkpoint is whole; both, and the steps themselves, are medians over rounds.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.records import machine, write_results


def measure(name: str, steps: int, rounds: int, kept: int) -> dict[str, float]:
    import jax
    import numpy as np

    from nutime_jax.config import load_config
    from nutime_jax.distributed.mesh import make_global_batch, make_mesh
    from nutime_jax.training.checkpoints import CheckpointManager
    from nutime_jax.training.input_pipeline import streamed_views
    from nutime_jax.training.program import build_program

    config = load_config(name)
    mesh = make_mesh()
    rows, length = config.batch_size, config.length
    series = np.random.default_rng(0).normal(size=(rows, length)).astype(np.float32)
    batch = make_global_batch({"series": series, "length": np.full(rows, length, np.int32), "offset": np.zeros(rows, np.float32)}, mesh)
    views = lambda key, batch: streamed_views(key, batch, size=length, ratio=tuple(config.augment.crop_ratio))  # noqa: E731
    program = build_program(config, views=(views,), mesh=mesh)
    state = program.init()
    state, _ = program.step(state, batch)  # compiles
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    times: dict[str, list[float]] = {"steps": [], "stall": [], "behind": []}
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointManager(folder, max_to_keep=max(kept, 2))
        for number in range(kept):
            store.save(state, step=number, metadata={})
        store.wait()
        for number in range(kept, kept + rounds + 1):  # the first also loads libraries
            jax.block_until_ready(state)
            start = time.perf_counter()
            for _ in range(steps):
                state, metrics = program.step(state, batch)
                jax.block_until_ready(metrics)
            stepped = time.perf_counter()
            store.save(state, step=number, metadata={})
            saved = time.perf_counter()
            store.wait()
            whole = time.perf_counter()
            for kind, seconds in zip(times, (stepped - start, saved - stepped, whole - saved), strict=True):
                times[kind].append(seconds)
        store.close()
    first = {f"first_{kind}_seconds": values[0] for kind, values in times.items()}
    medians = {kind: statistics.median(values[1:]) for kind, values in times.items()}
    return {
        "state_bytes": size,
        "steps": steps,
        "kept": kept,
        **{f"{kind}_seconds": value for kind, value in medians.items()},
        **first,
        "stall_share": medians["stall"] / medians["steps"],
        "total_share": (medians["stall"] + medians["behind"]) / medians["steps"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart", help="a shipped configuration (default: quickstart)")
    parser.add_argument("--steps", type=int, default=100, help="steps between two checkpoints (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="number of checkpoints to time (default: 3)")
    parser.add_argument("--kept", type=int, default=0, help="number of checkpoints that exist and are kept (default: 0)")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    name = f"{args.config}, {args.kept} kept" if args.kept else args.config
    write_results(
        {**results, name: measure(args.config, args.steps, args.rounds, args.kept), "machine": machine("jax", "orbax-checkpoint")}, args.out
    )


if __name__ == "__main__":
    main()
