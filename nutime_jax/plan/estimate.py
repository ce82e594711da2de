"""Resource estimates: step time from the cost of a step and the published peaks, as values and as text."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from nutime_jax.config import PretrainConfig
from nutime_jax.distributed.chips import Chip, Topology
from nutime_jax.plan.hlo import BETWEEN_SLICES, Collective
from nutime_jax.plan.step_cost import UPDATE_BYTES, StepCost, step_cost
from nutime_jax.training.flops import matmul_seconds
from nutime_jax.training.input_pipeline import CorpusSize

ALL_REDUCE_PASSES = 2
"""A ring all-reduce of n devices sends (n - 1) / n of an array twice; other collectives send it once."""
SMALL_ARRAY_BYTES = 4096
VERSIONS = ("nutime_jax", "jax", "jaxlib", "libtpu", "flax", "optax")


class Estimate(NamedTuple):
    """Seconds per step: matmuls and HBM traffic at published peaks, and communication that nothing overlaps.

    schedule: sum of the compiler's estimates of all operations, without collectives; None without a compiler. It includes
        vector arithmetic, random bits, padding and small arrays, which the peaks do not.
    """

    matmuls: float
    memory: float
    communication: float
    schedule: float | None

    @property
    def roofline(self) -> float:
        """Return the lower bound: the longer of matmuls and HBM traffic, plus communication."""
        return max(self.matmuls, self.memory) + self.communication

    @property
    def step(self) -> float:
        """Return the expected seconds per step."""
        return max(self.roofline, (self.schedule or 0) + self.communication)

    @property
    def mfu(self) -> float:
        """Return the matmuls at peak as a fraction of the expected step (model FLOPs utilisation)."""
        return self.matmuls / self.step

    @property
    def bound(self) -> str:
        return "matmuls" if self.matmuls > self.memory else "HBM traffic"


class ScalingPoint(NamedTuple):
    """Prediction for a number of chips: rows per chip, seconds per step and those of communication, series per second.

    efficiency: series per second and chip, relative to one chip with the same rows per chip, or with the same total batch.
    """

    chips: int
    rows: float
    seconds: float
    communication: float
    series_per_second: float
    efficiency: float


def estimate_step(cost: StepCost, topology: Topology) -> Estimate:
    """Return the time of a step on a TPU slice, or on GPUs in one or more nodes."""
    chip = topology.chip
    return Estimate(
        matmuls=matmul_seconds(cost.matmul_flops, chip),
        memory=cost.bytes_accessed / chip.bandwidth,
        communication=communication_seconds(cost.collectives, chip, links=topology.links, slice_size=topology.slice_size),
        schedule=cost.cycles / chip.clock if cost.cycles and chip.clock else None,
    )


def communication_seconds(collectives: Sequence[Collective], chip: Chip, *, links: float, slice_size: int) -> float:
    """Return the seconds of collectives, by bandwidth and latency, without overlap with arithmetic.

    A group larger than a slice or node first reduces within each. Then every chip communicates its part between them.

    Args:
        links: bytes/s that a chip sends within its slice.
        slice_size: chips per slice or node.
    """
    seconds = 0.0
    for collective in collectives:
        inside = 1 if collective.kind.endswith(BETWEEN_SLICES) else min(collective.group, slice_size)
        outside = -(-collective.group // inside)
        passes = ALL_REDUCE_PASSES if collective.kind.startswith("all-reduce") else 1
        sent = passes * collective.times * collective.size
        seconds += sent * (inside - 1) / inside / links + sent / inside * (outside - 1) / outside / chip.network
        seconds += passes * collective.times * collective.launches * _latency(inside, outside, chip)
    return seconds


def _latency(inside: int, outside: int, chip: Chip) -> float:
    """Return the seconds of one pass of an empty array: half-way round the ring of each axis, and once over the network."""
    hops = 0 if inside == 1 else chip.axes * inside ** (1 / chip.axes) / 2
    return hops * chip.hop + (outside > 1) * chip.network_hop


def predict_scaling(cost: StepCost, chip: Chip, *, rows: float, chips: Sequence[int], batch: int | None = None) -> list[ScalingPoint]:
    """Predict the step time on other numbers of chips.

    Matmuls, HBM traffic and the compiler's estimate are proportional to the rows per chip, except for the update of the parameters.
    The all-reduces run over all chips. Padding (at few rows per chip) is ignored.

    Args:
        cost: cost per chip with `rows` series.
        chips: numbers of chips; beyond one slice or node, several are joined by the network.
        batch: series on all chips together; None for `rows` per chip.
    """
    update = UPDATE_BYTES * cost.parameters / chip.bandwidth
    alone = estimate_step(cost._replace(collectives=()), Topology("", chip, (1,) * chip.axes))
    reduced = [collective for collective in cost.collectives if collective.kind == "all-reduce"]

    def step(count: int, rows_per_chip: float) -> tuple[float, float]:
        ratio = rows_per_chip / rows
        memory, schedule = (update + ratio * max(seconds - update, 0) for seconds in (alone.memory, alone.schedule or 0))
        links = chip.links if count >= chip.ring**chip.axes else chip.links / 2
        on_all = [collective._replace(group=count) for collective in reduced]
        communication = communication_seconds(on_all, chip, links=links, slice_size=chip.slice)
        return max(ratio * alone.matmuls, memory, schedule) + communication, communication

    points = []
    for count in chips:
        rows_per_chip = rows if batch is None else batch / count
        seconds, communication = step(count, rows_per_chip)
        ideal = step(1, rows_per_chip)[0] if batch is None else step(1, batch)[0] / count
        points.append(ScalingPoint(count, rows_per_chip, seconds, communication, rows_per_chip * count / seconds, ideal / seconds))
    return points


def make_plan(config: PretrainConfig, topology: Topology, *, size: CorpusSize | None = None, chips: Sequence[int] = ()) -> dict[str, Any]:
    """Return all values of a plan, in FLOPs, bytes and seconds, per chip where nothing else is stated.

    Args:
        size: size of a corpus in device memory; None is a streamed one.
        chips: numbers of chips to predict, with the same rows per chip and with the same total batch.

    Raises:
        InputError: see `step_cost`.
    """
    cost, chip = step_cost(config, topology, size=size), topology.chip
    times, rows, scaling = estimate_step(cost, topology), config.batch_size / topology.chips, {}
    if chips:
        scaling[f"{rows:g} series per chip"] = predict_scaling(cost, chip, rows=rows, chips=chips)
        scaling[f"{config.batch_size} series in total"] = predict_scaling(cost, chip, rows=rows, chips=chips, batch=config.batch_size)
    return {
        "config": config.name,
        "topology": topology.name,
        "chips": topology.chips,
        "batch_size": config.batch_size,
        "grad_accum_steps": config.grad_accum_steps,
        "remat": config.remat,
        "matmul_precision": config.matmul_precision,
        "compiled": topology.compiled,
        "matmul_flops": cost.matmul_flops,
        "flops": cost.flops,
        "bytes_accessed": cost.bytes_accessed,
        "arguments_bytes": cost.arguments,
        "temporaries_bytes": cost.temporaries,
        "code_bytes": cost.code,
        "capacity_bytes": chip.memory,
        "collectives": sum_collectives(cost.collectives),
        "launches": sum(collective.times * collective.launches for collective in cost.collectives),
        "unknown_loops": cost.unknown_loops,
        "seconds": {**times._asdict(), "roofline": times.roofline, "step": times.step, "bound": times.bound, "mfu": times.mfu},
        "steps": config.steps,
        "roofline": _run(config, topology, times.roofline),
        "run": _run(config, topology, times.step),
        "scaling": {name: [point._asdict() for point in points] for name, points in scaling.items()},
        "peaks": {name: value for name, value in chip._asdict().items() if name not in ("axes", "ring", "slice")},
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS if importlib.util.find_spec(name)},
    }


def sum_collectives(collectives: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """Return "all-reduce of gradients" -> number of arrays, their bytes, and times per step; the largest first."""
    sums: dict[str, dict[str, float]] = {}
    for collective in collectives:
        times = "" if collective.times == 1 else f", {collective.times:g} times"
        name = f"{collective.kind} of {_content(collective)}{times}"
        row = sums.setdefault(name, {"arrays": 0, "bytes": 0, "times": collective.times})
        row["arrays"] += 1
        row["bytes"] += collective.size
    return dict(sorted(sums.items(), key=lambda item: -item[1]["bytes"]))


def _content(collective: Collective) -> str:
    """Classify a collective by its origin; sums of BatchNorm include the gradients of its scale and bias."""
    if "/norm/" in collective.origin and "encoder/" not in collective.origin:
        return "BatchNorm statistics"
    # The compiler moves sums of gradients out of the loop over microbatches; their origin is then the loop.
    if "transpose(" in collective.origin or collective.origin.endswith("/while"):
        return "gradients"
    return "metrics" if collective.size <= SMALL_ARRAY_BYTES else "other arrays"


def _run(config: PretrainConfig, topology: Topology, seconds: float) -> dict[str, float]:
    """Return the totals of a run, from its seconds per step."""
    hours = seconds * config.steps / 3600
    return {"seconds": seconds, "series_per_second": config.batch_size / seconds, "hours": hours, "chip_hours": hours * topology.chips}


def render_plan(plan: dict[str, Any]) -> str:
    """Return a plan as text for a terminal."""
    seconds, peaks = plan["seconds"], plan["peaks"]
    method = "compiled" if plan["compiled"] else "analysed, not compiled: bytes and times are lower bounds"
    microbatches = f", in {plan['grad_accum_steps']} microbatches" if plan["grad_accum_steps"] > 1 else ""
    remat = f", remat {plan['remat']}" if plan["remat"] != "none" else ""
    communicated = sum(row["bytes"] * row["times"] for row in plan["collectives"].values())
    lines = [
        f"{plan['config']} on {plan['topology']}: {plan['chips']} chips, {method}",
        f"batch of {plan['batch_size']} series, {plan['batch_size'] / plan['chips']:g} per chip{microbatches}{remat}",
        "",
        "per chip and step",
        *_matmul_lines(plan),
        _line("HBM traffic", _bytes(plan["bytes_accessed"]), f"{_time(seconds['memory'])} at {_bytes(peaks['bandwidth'])}/s"),
        _line("communication", _bytes(communicated), f"{_time(seconds['communication'])} in {plan['launches']:g} collectives"),
        *(_line(f"  {name}", _bytes(row["bytes"]), f"{row['arrays']} arrays") for name, row in plan["collectives"].items()),
        *_memory_lines(plan),
        "",
        *_run_lines(plan),
    ]
    for name, points in plan["scaling"].items():
        lines += ["", f"predicted, {name}", "  chips  rows/chip      step  communication      series/s  efficiency"]
        lines += [
            f"{point['chips']:7,d} {point['rows']:10,g} {_time(point['seconds']):>9} {point['communication'] / point['seconds']:14.1%} "
            f"{point['series_per_second']:13,.0f} {point['efficiency']:11.1%}"
            for point in points
        ]
    lines += ["", f"peaks: {peaks['source']}" + (f" (not verified: {peaks['recalled']})" if peaks["recalled"] else "")]
    return "\n".join(lines)


def _matmul_lines(plan: dict[str, Any]) -> list[str]:
    """Return one line per precision with at least 1 % of the FLOPs."""
    peaks, total = plan["peaks"], sum(plan["matmul_flops"].values())
    lines = []
    for precision, flops in plan["matmul_flops"].items():
        passes = peaks["passes"][precision]
        if flops > total / 100:
            peak = f"{peaks['peak'] / passes / 1e12:.4g} TFLOP/s ({precision} precision)"
            lines.append(_line("matmuls", f"{flops / 1e9:,.1f} GFLOP", f"{_time(flops * passes / peaks['peak'])} at {peak}"))
    return lines


def _memory_lines(plan: dict[str, Any]) -> list[str]:
    parts = {"state, batch": plan["arguments_bytes"], "temporary buffers": plan["temporaries_bytes"], "executable": plan["code_bytes"]}
    known = {name: size for name, size in parts.items() if size is not None}
    total = sum(known.values())
    verdict = "does NOT fit" if total > plan["capacity_bytes"] else "fits" if len(known) == len(parts) else "without temporary buffers"
    note = f"{total / plan['capacity_bytes']:.1%} of {_bytes(plan['capacity_bytes'])}: {verdict}"
    return [_line("HBM needed", _bytes(total), note), *(_line(f"  {name}", _bytes(size)) for name, size in known.items())]


def _run_lines(plan: dict[str, Any]) -> list[str]:
    """Return the lower bound of a run and, with a compiler, its estimate, in adjacent columns."""
    names = {"roofline": "roofline"} | ({"run": "compiler estimate"} if plan["seconds"]["schedule"] else {})
    runs = [plan[name] for name in names]
    rows = {
        "step": [_time(run["seconds"]) for run in runs],
        "MFU": [f"{plan['seconds']['matmuls'] / run['seconds']:.1%}" for run in runs],
        "series": [f"{run['series_per_second']:,.0f}/s" for run in runs],
        "series per chip": [f"{run['series_per_second'] / plan['chips']:,.0f}/s" for run in runs],
        f"{plan['steps']:,} steps": [f"{run['hours']:,.2f} h" for run in runs],
        "": [f"{run['chip_hours']:,.1f} chip-hours" for run in runs],
    }
    lines = [f"{'run':<30}" + "".join(f"{name:>20}" for name in names.values())]
    lines += [f"  {name:<28}" + "".join(f"{value:>20}" for value in values) for name, values in rows.items()]
    return [*lines, f"  (the roofline is bound by {plan['seconds']['bound']} and never reached; a slow host is ignored)"]


def _line(name: str, value: str, note: str = "") -> str:
    return f"  {name:<36}{value:>14}  {note}".rstrip()


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
