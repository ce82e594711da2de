"""What a plan says, as text that fits a terminal and as values for machines."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any

from nutime_jax.config import PretrainConfig
from nutime_jax.plan.chips import Topology
from nutime_jax.plan.hlo import Collective
from nutime_jax.plan.roofline import Estimate, Point, Work

VERSIONS = ("nutime_jax", "jax", "jaxlib", "libtpu", "flax", "optax")


def sum_exchanges(collectives: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """ "all-reduce of gradients" -> arrays, their bytes, and times a step."""
    sums: dict[str, dict[str, float]] = {}
    for one in collectives:
        times = "" if one.times == 1 else f", {one.times:g} times"
        row = sums.setdefault(f"{one.kind} of {_what(one)}{times}", {"arrays": 0, "bytes": 0, "times": one.times})
        row["arrays"] += 1
        row["bytes"] += one.size
    return dict(sorted(sums.items(), key=lambda item: -item[1]["bytes"]))


def _what(one: Collective) -> str:
    """Told from the operation that it stands for; BatchNorm's sums are the gradients of its scale and bias too."""
    if "/norm/" in one.origin and "encoder/" not in one.origin:
        return "BatchNorm's statistics"
    # The compiler takes sums of gradients out of the loop over the parts of a batch, and then knows the loop alone.
    if "transpose(" in one.origin or one.origin.endswith("/while"):
        return "gradients"
    return "what is logged" if one.size <= 4096 else "other arrays"


def describe_plan(
    config: PretrainConfig, topology: Topology, work: Work, found: Estimate, points: dict[str, list[Point]]
) -> dict[str, Any]:
    """All numbers of a plan, in FLOPs, bytes and seconds, of one chip where nothing else is said."""
    chip = topology.chip
    return {
        "config": config.name,
        "topology": topology.name,
        "chips": topology.chips,
        "batch_size": config.batch_size,
        "grad_accum_steps": config.grad_accum_steps,
        "remat": config.remat,
        "matmul_precision": config.matmul_precision,
        "compiled": topology.compiled,
        "products_flops": work.products,
        "flops": work.flops,
        "moved_bytes": work.moved,
        "arguments_bytes": work.arguments,
        "temporaries_bytes": work.temporaries,
        "code_bytes": work.code,
        "capacity_bytes": chip.memory,
        "exchanges": sum_exchanges(work.collectives),
        "loops_of_unknown_length": work.unknown,
        "seconds": {**found._asdict(), "floor": found.floor, "step": found.step, "bound": found.bound},
        "steps": config.steps,
        "floor": _run(config, topology, found.floor),
        "run": _run(config, topology, found.step),
        "scaling": {name: [point._asdict() for point in line] for name, line in points.items()},
        "peaks": {name: value for name, value in chip._asdict().items() if name not in ("axes", "ring", "slice")},
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS if importlib.util.find_spec(name)},
    }


def _run(config: PretrainConfig, topology: Topology, seconds: float) -> dict[str, float]:
    """Of a run whose steps take so many seconds."""
    hours = seconds * config.steps / 3600
    return {"seconds": seconds, "series_per_second": config.batch_size / seconds, "hours": hours, "chip_hours": hours * topology.chips}


def render_plan(plan: dict[str, Any]) -> str:
    """The plan for a reader who has to decide."""
    seconds, peaks = plan["seconds"], plan["peaks"]
    rows = plan["batch_size"] / plan["chips"]
    how = "compiled" if plan["compiled"] else "by analysis, not compiled: bytes and times are lower bounds"
    parts = f", in {plan['grad_accum_steps']} parts" if plan["grad_accum_steps"] > 1 else ""
    remat = f", remat {plan['remat']}" if plan["remat"] != "none" else ""
    lines = [
        f"{plan['config']} on {plan['topology']}: {plan['chips']} chips, {how}",
        f"batch of {plan['batch_size']} series, {rows:g} a chip{parts}{remat}",
        "",
        "a chip and step",
        *_products(plan),
        _line("HBM traffic", _bytes(plan["moved_bytes"]), f"{_time(seconds['memory'])} at {_bytes(peaks['bandwidth'])}/s"),
        _line("exchanged", _bytes(sum(one["bytes"] * one["times"] for one in plan["exchanges"].values())), _time(seconds["exchange"])),
        *(_line(f"  {name}", _bytes(one["bytes"]), f"{one['arrays']} arrays") for name, one in plan["exchanges"].items()),
        *_memory(plan),
        "",
        *_columns(plan),
    ]
    for name, line in plan["scaling"].items():
        lines += ["", f"predicted, {name}", "  chips  rows a chip      step  exchange      series/s  efficiency"]
        lines += [
            f"{one['chips']:7,d} {one['rows']:12,g} {_time(one['seconds']):>9} {one['exchange'] / one['seconds']:9.1%} "
            f"{one['series']:13,.0f} {one['efficiency']:11.1%}"
            for one in line
        ]
    lines += ["", f"peaks: {peaks['source']}" + (f" (not looked up again: {peaks['recalled']})" if peaks["recalled"] else "")]
    return "\n".join(lines)


def _columns(plan: dict[str, Any]) -> list[str]:
    """The run at best and as expected, side by side; without a compiler, at best alone."""
    names = {"floor": "at published peaks", "run": "by the compiler"} if plan["seconds"]["schedule"] else {"floor": "at published peaks"}
    runs = [plan[name] for name in names]
    rows = {
        "step": [_time(one["seconds"]) for one in runs],
        "series": [f"{one['series_per_second']:,.0f}/s" for one in runs],
        "series a chip": [f"{one['series_per_second'] / plan['chips']:,.0f}/s" for one in runs],
        f"{plan['steps']:,} steps": [f"{one['hours']:,.2f} h" for one in runs],
        "": [f"{one['chip_hours']:,.1f} chip-hours" for one in runs],
    }
    lines = [f"{'a run':<30}" + "".join(f"{name:>20}" for name in names.values())]
    lines += [f"  {name:<28}" + "".join(f"{value:>20}" for value in values) for name, values in rows.items()]
    return [*lines, f"  (peaks are never reached; they are bound by {plan['seconds']['bound']}. Neither counts latency or a slow host)"]


def _products(plan: dict[str, Any]) -> list[str]:
    """One line a precision; products that are always exact are not worth one."""
    peaks, total = plan["peaks"], sum(plan["products_flops"].values())
    lines = []
    for name, flops in plan["products_flops"].items():
        passes = peaks["passes"][name]
        if flops > total / 100:
            peak = f"{peaks['peak'] / passes / 1e12:.4g} TFLOP/s ({name} precision)"
            lines.append(_line("matrix products", f"{flops / 1e9:,.1f} GFLOP", f"{_time(flops * passes / peaks['peak'])} at {peak}"))
    return lines


def _memory(plan: dict[str, Any]) -> list[str]:
    parts = {"state, batch": plan["arguments_bytes"], "temporaries": plan["temporaries_bytes"], "program": plan["code_bytes"]}
    known = {name: size for name, size in parts.items() if size is not None}
    total = sum(known.values())
    verdict = "does NOT fit" if total > plan["capacity_bytes"] else "fits" if len(known) == len(parts) else "and temporaries, unknown"
    share = f"{total / plan['capacity_bytes']:.1%} of {_bytes(plan['capacity_bytes'])}: {verdict}"
    return [_line("HBM needed", _bytes(total), share), *(_line(f"  {name}", _bytes(size), "") for name, size in known.items())]


def _line(name: str, value: str, note: str) -> str:
    return f"  {name:<36}{value:>14}  {note}".rstrip()


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
