"""What the text of a compiled program tells: how often its parts run, what they move, and what devices tell each other."""

import math
import re
from collections import Counter
from typing import NamedTuple

WIDTHS = {"pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
WIDTHS |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8}
"""Bytes of an element; what is not here (tokens) has none."""
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all", "partition-id"}
"""Operations that move nothing themselves."""

_TUPLE = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?%?([\w.\-]+) = ({_TUPLE}|\S+) ([\w\-]+)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")
_ORIGIN = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Instruction(NamedTuple):
    """name, shape, operation, and all that follows the bracket that opens its operands."""

    name: str
    shape: str
    operation: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return _NAME.findall(self.rest.split("), ")[0])

    @property
    def origin(self) -> str:
        found = _ORIGIN.search(self.rest)
        return found[1] if found else ""


class Collective(NamedTuple):
    """One array that devices exchange.

    kind: one of COLLECTIVES. size: its bytes on a device, after the exchange. group: devices that take part.
    times: in a step. origin: the operation of the program that it stands for.
    """

    kind: str
    size: int
    group: int
    times: float
    origin: str


class Counts(NamedTuple):
    """What a device does in a step.

    traffic: bytes to and from HBM, over those that the compiler counts: each loop once, and what stays on the chip too.
    cycles: by the compiler's own estimate, every operation after the other; 0 where it has none.
    unknown: loops whose length the text does not tell; they are counted as if they ran once.
    """

    collectives: tuple[Collective, ...]
    traffic: float
    cycles: float
    unknown: int


class Array(NamedTuple):
    """Bytes of an array, without the padding of tiles, and whether they lie in HBM rather than in memory on the chip."""

    size: int
    outside: bool


def read_arrays(shape: str) -> list[Array]:
    """Every array in the text of a shape, which may be a tuple."""
    found = _ARRAY.findall(shape)
    sizes = [WIDTHS.get(kind, 0) * math.prod(int(one) for one in axes.split(",") if one) for kind, axes, _ in found]
    return [Array(size, "S(" not in layout) for size, (_, _, layout) in zip(sizes, found, strict=True)]


def count(text: str) -> Counts:
    """Reads a compiled program, as `Compiled.as_text()` gives it."""
    computations, entry = _parse(text)
    times, fused, unknown = _executions(computations, entry)
    collectives, moved, counted, cycles = [], 0.0, 0.0, 0.0
    for name, instructions in computations.items():
        shapes = {one.name: one.shape for one in instructions}
        # Each array of a collective of many has its origin where it is taken out.
        origins = {_taken(one): one.origin for one in instructions if one.operation == "get-tuple-element"}
        for one in instructions:
            found = _CYCLES.search(one.rest)
            cycles += times[name] * int(found[1]) if found else 0
            collectives += _collectives(one, times[name], origins)
            if name in fused or one.operation in FREE or one.operation.endswith("-done"):
                continue
            # What starts something asynchronous gives both what goes in and what comes out.
            operands = [] if one.operation.endswith("-start") else one.operands
            for array in read_arrays(" ".join([one.shape, *(shapes.get(operand, "") for operand in operands)])):
                counted += array.size * (times[name] > 0)
                moved += array.size * times[name] * array.outside
    return Counts(tuple(collectives), moved / counted if counted else 1.0, cycles, unknown)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif found := _INSTRUCTION.match(line):
            current.append(Instruction(*found.groups()))
    return computations, entry


def _executions(computations: dict[str, list[Instruction]], entry: str) -> tuple[Counter, set[str], int]:
    """How often each computation runs in a step, which are parts of a fusion or a reduction, and loops of unknown length."""
    times, fused, unknown = Counter(), set(), set()

    def visit(name: str, runs: float) -> None:
        times[name] += runs
        for one in computations.get(name, ()):
            trips = 1
            if one.operation == "while":
                trips = _trips(one, computations)
                unknown.update([one.name] if trips is None else [])
            for called in _CALLED.findall(one.rest):
                for callee in called.strip("{}").replace("%", "").split(", "):
                    fused.update([callee] if name in fused or one.operation not in ("while", "conditional", "call") else [])
                    visit(callee, runs * (trips or 1))

    visit(entry, 1)
    return times, fused, len(unknown)


def _trips(loop: Instruction, computations: dict[str, list[Instruction]]) -> int | None:
    """How often a loop runs: as the compiler notes it, or by its condition, which for a scan is "counter < length"."""
    if found := _TRIPS.search(loop.rest):
        return int(found[1])
    condition = re.search(r"\bcondition=%?([\w.\-]+)", loop.rest)
    instructions = {one.name: one for one in computations.get(condition[1], ())} if condition else {}
    for one in instructions.values():
        if one.operation == "compare" and "direction=LT" in one.rest and len(one.operands) == 2:
            limit = instructions.get(one.operands[1])
            if limit is not None and limit.operation == "constant" and (number := re.match(r"(\d+)\)", limit.rest)):
                return int(number[1])
    return None


def _taken(one: Instruction) -> tuple[str, int]:
    index = re.search(r"index=(\d+)", one.rest)
    return (one.operands or [""])[0], int(index[1]) if index else 0


def _collectives(one: Instruction, times: float, origins: dict[tuple[str, int], str]) -> list[Collective]:
    kind = one.operation.removesuffix("-start")
    if kind not in COLLECTIVES:
        return []
    sizes = [array.size for array in read_arrays(one.shape)]
    if one.operation == "all-gather-start" or one.operation == "collective-permute-start":
        sizes = sizes[1:2]  # (what goes in, what comes out, …)
    group = _group(one.rest)
    return [Collective(kind, size, group, times, origins.get((one.name, at), one.origin)) for at, size in enumerate(sizes)]


def _group(rest: str) -> int:
    """Devices of a group, from any of the ways in which groups are written; 2 for pairs that pass something on."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        axes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(axes[axis]) for axis in re.findall(r"'([^']+)'", found[2]))
    return 2 if "source_target_pairs" in rest else 1
