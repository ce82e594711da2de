"""From what a chip has to do in a step, and what it can do at most, to a step time, and to other numbers of chips."""

from collections.abc import Sequence
from typing import NamedTuple

from nutime_jax.plan.chips import Chip, Topology
from nutime_jax.plan.hlo import Collective

PASSES = {"all-reduce": 2}
"""How often (n - 1) / n of an array leave a chip, in a group of n; once where it is not said."""
UPDATE = 36
"""Bytes a parameter that an update reads (parameter, gradient, two moments, target) and writes (all but the gradient)."""


class Work(NamedTuple):
    """What one chip does in a step. None is what only a compiler knows.

    products: FLOPs of matrix products by their precision.
    moved: bytes to and from HBM. collectives: see `hlo`.
    arguments: bytes of HBM that state and batch take. temporaries, code: those that a step needs besides.
    flops: all of them, by the compiler's count.
    cycles: by its own estimate, every operation after the other.
    unknown: loops that count once since their length is not known.
    """

    products: dict[str, float]
    moved: float
    collectives: tuple[Collective, ...]
    arguments: float
    temporaries: float | None = None
    code: float | None = None
    flops: float | None = None
    cycles: float | None = None
    unknown: int = 0

    @property
    def memory(self) -> float:
        """Bytes of HBM that are known to be needed."""
        return self.arguments + (self.temporaries or 0) + (self.code or 0)


class Estimate(NamedTuple):
    """Seconds a step: of matrix products and of HBM traffic at published peaks, and of exchanges that nothing hides.

    schedule: what the compiler's own estimate of every operation adds up to, without exchanges; None without a compiler.
    It knows of vector arithmetic, random bits, padding and small arrays, of which peaks know nothing.
    """

    products: float
    memory: float
    exchange: float
    schedule: float | None

    @property
    def floor(self) -> float:
        """The roofline: the longer of products and traffic, and the exchanges. No step is faster."""
        return max(self.products, self.memory) + self.exchange

    @property
    def step(self) -> float:
        """What is to be expected."""
        return max(self.floor, (self.schedule or 0) + self.exchange)

    @property
    def bound(self) -> str:
        """What sets the floor."""
        return "matrix products" if self.products > self.memory else "HBM traffic"


class Point(NamedTuple):
    """A step on so many chips: rows a chip, seconds and the part of them that is exchange, series a second.

    efficiency: series a second and chip, over those of one chip with the same rows, or with the same whole batch.
    """

    chips: int
    rows: float
    seconds: float
    exchange: float
    series: float
    efficiency: float


def estimate(work: Work, topology: Topology) -> Estimate:
    """The step time of a slice, or of GPUs in as many nodes as they take."""
    chip = topology.chip
    return Estimate(
        sum(flops * chip.passes[precision] for precision, flops in work.products.items()) / chip.peak,
        work.moved / chip.bandwidth,
        exchange_seconds(work.collectives, chip, links=topology.links),
        work.cycles / chip.clock if work.cycles and chip.clock else None,
    )


def exchange_seconds(collectives: Sequence[Collective], chip: Chip, *, links: float) -> float:
    """Bandwidth alone: no latency, and nothing hidden behind arithmetic.

    A group larger than a slice or node reduces within each first; then every chip exchanges its share between them.
    """
    seconds = 0.0
    for one in collectives:
        inside = min(one.group, chip.slice)
        outside = -(-one.group // inside)
        leaving = PASSES.get(one.kind, 1) * one.times * one.size
        seconds += leaving * (inside - 1) / inside / links + leaving / inside * (outside - 1) / outside / chip.network
    return seconds


def scale(work: Work, chip: Chip, *, rows: float, parameters: int, chips: Sequence[int], batch: int | None = None) -> list[Point]:
    """Predicts the step of other numbers of chips from the work of one.

    Products, traffic and the compiler's estimate are proportional to the rows of a chip, but for the update, which moves
    UPDATE bytes a parameter.
    What is reduced is reduced once over all chips. Latency, which counts on thousands of chips, and padding, which counts
    at few rows a chip, are left out.

    Args:
        work: of a chip with `rows` series.
        parameters: of the network that is trained.
        chips: their numbers; more than make a slice or node are several of them, joined by the network.
        batch: of all chips together; None for `rows` on every one.
    """
    update = UPDATE * parameters / chip.bandwidth
    alone = estimate(work._replace(collectives=()), Topology("", chip, (1,) * chip.axes))
    reduced = sum(one.size * one.times for one in work.collectives if one.kind == "all-reduce")

    def step(count: int, mine: float) -> tuple[float, float]:
        share = mine / rows
        memory, schedule = (update + share * max(seconds - update, 0) for seconds in (alone.memory, alone.schedule or 0))
        links = chip.links if count >= chip.ring**chip.axes else chip.links / 2
        exchange = exchange_seconds([Collective("all-reduce", reduced, count, 1, "")], chip, links=links)
        return max(share * alone.products, memory, schedule) + exchange, exchange

    points = []
    for count in chips:
        mine = rows if batch is None else batch / count
        seconds, exchange = step(count, mine)
        ideal = step(1, mine)[0] if batch is None else step(1, batch)[0] / count
        points.append(Point(count, mine, seconds, exchange, mine * count / seconds, ideal / seconds))
    return points
