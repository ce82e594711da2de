"""Plans of the published recipe for TPU slices and GPUs that you do not have (`nutime plan`), and the tables made of them.

    python -m benchmarks.plan
    python -m benchmarks.plan v5e:4x4 v5e:4x4/remat=full
    python -m benchmarks.plan --tables

A case is a topology and overrides, separated by slashes. The default cases are those of the committed tables. Needs the compiler
for TPUs (pip install 'nutime_jax[tpu]') and minutes per case. Cases that are already in benchmarks/results/plan.json are kept;
then the tables of benchmarks/README.md and launch/README.md are written.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.records import machine, replace_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "plan.json"
BATCH = 4096
HALF = "/model.dtype=bfloat16"
# 256 series per chip on each.
FULL = ("v5e:4x4", "v6e:16x16/batch_size=65536", "v5p:8x8x8/batch_size=131072", "2*v5e:4x4/batch_size=8192")
# As many rows per chip as v5e:16x16, in 1/16 of its batch: differences grow with the total batch.
FUSED = "/attention=fused"
SPREAD = ("v5e:16x16", "v6e:16x16", "v5p:8x8x8", "v5e:4x4/batch_size=256")
CASES = (*FULL, FULL[0] + HALF, FULL[0] + FUSED, FULL[0] + FUSED + HALF, *SPREAD, "h100:8", "h200:8")
MFU_AIMS = {"v5e": 0.12, "v6e": 0.08, "v5p": 0.08}
"""Aims at 256 series per chip."""
PRETRAINING = 369_000 * 1024
"""Series of the published pretraining."""


def measure(case: str) -> dict:
    """Return the plan of a case, the seconds to make it, and the machine."""
    from nutime_jax.cli.plan import SCALING
    from nutime_jax.config import load_config
    from nutime_jax.distributed.chips import parse_topology
    from nutime_jax.plan.estimate import make_plan, render_plan

    topology, *overrides = case.split("/")
    config = load_config("nutime_paper", [f"batch_size={BATCH}", *overrides])
    start = time.perf_counter()
    plan = make_plan(config, parse_topology(topology), chips=() if overrides else SCALING)
    print(f"\n{case}\n{render_plan(plan)}", flush=True)
    return plan | {"seconds_to_plan": round(time.perf_counter() - start, 1), "machine": machine()}


def render_steps(plans: dict[str, dict]) -> str:
    """Return the table of steps, per chip."""
    columns = "slice | series | dtype | attention | HBM traffic, GB | buffers, MB | collectives | roofline, ms | compiler, ms | MFU | aim"
    lines = [f"| {columns} |", "|---" * columns.count("|") + "|---|"]
    for case, plan in plans.items():
        if not plan["compiled"]:
            continue
        seconds, series = plan["seconds"], plan["batch_size"] / plan["chips"]
        estimated = seconds["schedule"] is not None  # not for kernels
        topology = plan["topology"]
        aim = MFU_AIMS[topology.rpartition("*")[2].partition(":")[0]] if series == 256 else None
        kinds = {name.partition(" ")[0] for name in plan["collectives"]}
        kind = "all-reduces" if kinds == {"all-reduce"} else "of three kinds"
        cells = [
            topology,
            f"{series:g}",
            "bfloat16" if HALF in case else "float32",
            "fused" if FUSED in case else "matmul",
            f"{plan['bytes_accessed'] / 1e9:.2f}",
            f"{plan['temporaries_bytes'] / 1e6:,.0f}",
            f"{plan['launches']:g} {kind}",
            f"{1e3 * seconds['roofline']:.2f}",
            f"{1e3 * seconds['step']:.2f}" if estimated else "–",
            f"{100 * seconds['mfu']:.1f} %" if estimated else "–",
            f"{100 * aim:.0f} %" if aim else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def render_scaling(plan: dict) -> str:
    """Return the table of predictions for other numbers of chips."""
    first, *_ = points = list(plan["scaling"].values())
    lines = ["| chips | " + " | ".join(f"{point['chips']:,}" for point in first) + " |", "|---" * (len(first) + 1) + "|"]
    for name, row in zip(plan["scaling"], points, strict=True):
        lines.append(f"| {name}: step, ms | " + " | ".join(f"{1e3 * point['seconds']:.3g}" for point in row) + " |")
        lines.append("| efficiency | " + " | ".join(f"{100 * point['efficiency']:.1f} %" for point in row) + " |")
    return "\n".join(lines)


def render_costs(plans: dict[str, dict]) -> str:
    """Return the table of the published pretraining on each slice."""
    lines = ["| slice | batch | series per second | hours | chip-hours | chip-hours at the roofline |", "|---|---|---|---|---|---|"]
    for case in (*FULL[:-1], *SPREAD[:-1]):
        if (plan := plans.get(case)) is None:
            continue
        chips, batch = plan["chips"], plan["batch_size"]
        hours, least = (PRETRAINING / batch * plan["seconds"][name] / 3600 for name in ("step", "roofline"))
        rate = batch / plan["seconds"]["step"]
        lines.append(f"| {plan['topology']} | {batch:,} | {rate:,.0f} | {hours:.2g} | {hours * chips:.1f} | {least * chips:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="default: those of the tables that are not in the file")
    parser.add_argument("--tables", action="store_true", help="only write the tables, from the results")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file for the results; with another one no table is written")
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    cases = args.cases or [case for case in CASES if case not in results]
    for case in () if args.tables else cases:
        results[case] = measure(case)
        args.out.write_text(json.dumps(results, indent=2) + "\n")
    if args.out == RESULTS:
        steps, scaling = render_steps(results), render_scaling(results[FULL[0]])
        replace_tables(f"{steps}\n\n{scaling}", ROOT / "benchmarks" / "README.md", maker="benchmarks.plan")
        replace_tables(render_costs(results), ROOT / "launch" / "README.md", maker="benchmarks.plan")


if __name__ == "__main__":
    main()
