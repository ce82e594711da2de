"""Cost of checkpoints: time for which the loop stops, and slowdown of the steps during the asynchronous write.

    python -m benchmarks.checkpoint
    python -m benchmarks.checkpoint --steps=100 --rounds=3 --kept=2,100 --out=benchmarks/results/checkpoint.json

The real step of a configuration runs on a fixed batch, with a checkpoint after every `steps` steps, in folders with few and
with many checkpoints. `stall` is the time inside `save`, `behind` the time until the checkpoint is complete; both, and the
steps themselves, are medians over rounds.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.records import machine, write_results


def measure(name: str, steps: int, rounds: int, kept: list[int]) -> dict[str, dict[str, float]]:
    """Return the figures of runs that resume with N checkpoints each; they save in turn, and share the steps."""
    import jax

    program, batch = real_step(name)
    state, _ = program.step(program.init(), batch)  # compiles
    times = {count: {"steps": [], "stall": [], "behind": []} for count in kept}
    with tempfile.TemporaryDirectory() as folder:
        stores = {count: resumed_manager(Path(folder) / str(count), state, count) for count in kept}
        for number in range(rounds + 1):  # the first also loads libraries, and verifies checkpoints
            jax.block_until_ready(state)
            start = time.perf_counter()
            for _ in range(steps):
                state, metrics = program.step(state, batch)
                jax.block_until_ready(metrics)
            stepped = time.perf_counter() - start
            for count in kept[:: 1 if number % 2 else -1]:
                start = time.perf_counter()
                stores[count].save(state, step=1000 + number, metadata={})
                saved = time.perf_counter()
                stores[count].wait()
                seconds = (stepped, saved - start, time.perf_counter() - saved)
                for kind, value in zip(times[count], seconds, strict=True):
                    times[count][kind].append(value)
        for store in stores.values():
            store.close()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    return {f"{name}, {count} kept": {"state_bytes": size, "steps": steps, "kept": count, **summary(times[count])} for count in kept}


def real_step(name: str):
    """Return the program of a configuration, and a batch."""
    import numpy as np

    from nutime_jax.config import load_config
    from nutime_jax.distributed.mesh import make_global_batch, make_mesh
    from nutime_jax.training.input_pipeline import corpus_views
    from nutime_jax.training.program import build_program

    config = load_config(name)
    mesh = make_mesh()
    rows, length = config.batch_size, config.length
    series = np.random.default_rng(0).normal(size=(rows, length)).astype(np.float32)
    batch = make_global_batch({"series": series, "length": np.full(rows, length, np.int32), "offset": np.zeros(rows, np.float32)}, mesh)
    views = lambda key, batch: corpus_views(key, batch, size=length, ratio=tuple(config.augment.crop_ratio))  # noqa: E731
    return build_program(config, views=(views,), mesh=mesh), batch


def resumed_manager(folder: Path, state, kept: int):
    """Return a manager of a folder with `kept` checkpoints that another one wrote, of which the newest is restored."""
    from nutime_jax.training.checkpoints import CheckpointManager, latest_checkpoint

    with contextlib.closing(CheckpointManager(folder, max_to_keep=kept)) as store:
        for number in range(kept):
            store.save(state, step=number + 1, metadata={})
    store = CheckpointManager(folder, max_to_keep=kept)
    store.restore(latest_checkpoint(folder), state)
    return store


def summary(times: dict[str, list[float]]) -> dict[str, float]:
    """Return medians without the first round, and the first round."""
    medians = {kind: statistics.median(values[1:]) for kind, values in times.items()}
    return {
        **{f"{kind}_seconds": value for kind, value in medians.items()},
        **{f"first_{kind}_seconds": values[0] for kind, values in times.items()},
        "stall_share": medians["stall"] / medians["steps"],
        "total_share": (medians["stall"] + medians["behind"]) / medians["steps"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart", help="a shipped configuration (default: quickstart)")
    parser.add_argument("--steps", type=int, default=100, help="steps between two checkpoints (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="number of checkpoints to time (default: 3)")
    parser.add_argument("--kept", default="2,100", help="numbers of checkpoints that exist and are kept, with commas (default: 2,100)")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    figures = measure(args.config, args.steps, args.rounds, [int(count) for count in args.kept.split(",")])
    write_results({**results, **figures, "machine": machine("jax", "orbax-checkpoint")}, args.out)


if __name__ == "__main__":
    main()
