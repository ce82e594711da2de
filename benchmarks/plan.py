"""Plans of the base configuration for TPU slices and GPUs that you do not have (`nutime plan`).

    python -m benchmarks.plan --out=benchmarks/results/plan.json
    python -m benchmarks.plan v5e:4x4 v5e:4x4/remat=full --out=benchmarks/results/plan.json

A case is a topology and overrides, separated by slashes. The default cases are those of the committed table. Needs the compiler
for TPUs (pip install 'nutime_jax[tpu]') and minutes per case. Cases that are already in the file are kept.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.records import machine

BATCH = 4096
CASES = (
    "v5e:4x4",
    "v5e:16x16",
    "v5p:8x8x8",
    "v6e:16x16",
    # As many rows per chip as v5e:16x16, in 1/16 of its batch: differences grow with the total batch.
    "v5e:4x4/batch_size=256",
    "v5e:4x4/remat=save_dots",
    "v5e:4x4/remat=full",
    "v5e:4x4/grad_accum_steps=4",
    "h100:8",
    "h200:8",
)


def measure(case: str) -> dict:
    """Return the plan of a case, the seconds to make it, and the machine."""
    from nutime_jax.cli.plan import SCALING
    from nutime_jax.config import load_config
    from nutime_jax.distributed.chips import parse_topology
    from nutime_jax.plan.estimate import make_plan

    topology, *overrides = case.split("/")
    config = load_config("nutime_paper", [f"batch_size={BATCH}", *overrides])
    start = time.perf_counter()
    plan = make_plan(config, parse_topology(topology), chips=() if overrides else SCALING)
    return plan | {"seconds_to_plan": round(time.perf_counter() - start, 1), "machine": machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--out", type=Path, required=True, help="file for the results, as JSON")
    args = parser.parse_args()
    from nutime_jax.plan.estimate import render_plan

    for case in args.cases:
        plan = measure(case)
        print(f"\n{case}\n{render_plan(plan)}", flush=True)
        results = json.loads(args.out.read_text()) if args.out.exists() else {}
        args.out.write_text(json.dumps(results | {case: plan}, indent=2) + "\n")


if __name__ == "__main__":
    main()
