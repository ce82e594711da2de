"""Collectives, loops and cycle estimates of a compiled step, parsed from its optimised HLO text.

JAX's `cost_analysis` gives FLOPs and bytes accessed, but counts the body of a loop once and includes bytes that stay on the
chip; it has no collectives and no cycles. This module counts only what it lacks.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

ELEMENT_BYTES = {"pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
ELEMENT_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
BETWEEN_SLICES = " between slices"
"""Suffix of the kind of a collective over the network, to which each chip sends its part. Within slices there are others."""
CONTROL_FLOW = ("while", "conditional", "call")
WITHOUT_TRAFFIC = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", *CONTROL_FLOW}
"""Operations that access no memory themselves."""

_TUPLE = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?%?([\w.\-]+) = ({_TUPLE}|\S+) ([\w\-]+)\((.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")


class Instruction(NamedTuple):
    """An HLO instruction; `rest` is the text after the bracket that opens its operands."""

    name: str
    shape: str
    operation: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return _NAME.findall(self.rest.split("), ")[0])

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls."""
        return [name for group in _CALLED.findall(self.rest) for name in group.strip("{}").replace("%", "").split(", ")]

    @property
    def origin(self) -> str:
        return self.attribute(r'op_name="([^"]*)"') or ""

    @property
    def is_kernel(self) -> bool:
        """Whether it is a Pallas kernel, whose cycles the compiler does not estimate."""
        return '"tpu_custom_call"' in self.rest

    @property
    def cycles(self) -> int:
        return int(self.attribute(r'"estimated_cycles":"(\d+)"') or 0)

    def attribute(self, pattern: str) -> str | None:
        match = re.search(pattern, self.rest)
        return match[1] if match else None


class Collective(NamedTuple):
    """An array that devices communicate.

    kind: one of COLLECTIVES, or with BETWEEN_SLICES. size: bytes of the result per device. group: number of participating devices.
    times: executions per step. origin: `op_name` of the operation in the JAX program.
    launches: whether it is the first array of its instruction, or of several that are sent over the network; the others go with it.
    """

    kind: str
    size: int
    group: int
    times: float
    origin: str
    launches: bool = True


class HloCounts(NamedTuple):
    """Counts of one device and step.

    hbm_ratio: bytes to and from HBM (loops by their trip counts, without buffers on the chip), as a ratio of the bytes that
        `cost_analysis` counts.
    cycles: sum of the compiler's estimates of all operations; 0 if it makes none, or not for a kernel.
    unknown_loops: loops without a known trip count; counted as one trip.
    """

    collectives: tuple[Collective, ...]
    hbm_ratio: float
    cycles: float
    unknown_loops: int


class Array(NamedTuple):
    """Bytes of an array without the padding of tiles, and whether it is in HBM rather than in memory on the chip."""

    size: int
    in_hbm: bool


def parse_arrays(shape: str) -> list[Array]:
    """Return every array of a shape, which may be a tuple."""
    arrays = []
    for element, dimensions, layout in _ARRAY.findall(shape):
        size = math.prod(int(dimension) for dimension in dimensions.split(",") if dimension)
        arrays.append(Array(ELEMENT_BYTES.get(element, 0) * size, "S(" not in layout))
    return arrays


def analyse_hlo(text: str) -> HloCounts:
    """Count collectives, bytes and cycles in the text of a compiled function (`Compiled.as_text()`)."""
    computations, entry = _parse(text)
    executions, fused, unknown_loops = _count_executions(computations, entry)
    collectives, hbm_bytes, counted_bytes, cycles = [], 0.0, 0.0, 0.0
    for name, instructions in computations.items():
        times = executions[name]
        shapes = {instruction.name: instruction.shape for instruction in instructions}
        origins = _tuple_origins(instructions)
        for instruction in instructions:
            cycles += times * instruction.cycles
            collectives += _collectives(instruction, times, origins)
            if name in fused or instruction.operation in WITHOUT_TRAFFIC or instruction.operation.endswith("-done"):
                continue
            # The result of an asynchronous start contains its operands.
            operands = [] if instruction.operation.endswith("-start") else instruction.operands
            for array in parse_arrays(" ".join([instruction.shape, *(shapes.get(operand, "") for operand in operands)])):
                counted_bytes += array.size * (times > 0)
                hbm_bytes += array.size * times * array.in_hbm
    if any(instruction.is_kernel for instructions in computations.values() for instruction in instructions):
        cycles = 0.0
    return HloCounts(tuple(collectives), hbm_bytes / counted_bytes if counted_bytes else 1.0, cycles, unknown_loops)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of every computation, and the name of the entry computation."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif match := _INSTRUCTION.match(line):
            current.append(Instruction(*match.groups()))
    return computations, entry


def _count_executions(computations: dict[str, list[Instruction]], entry: str) -> tuple[Counter, set[str], int]:
    """Return executions per step of every computation, those inside fusions and reductions, and the number of unknown loops."""
    executions, fused, unknown = Counter(), set(), set()

    def visit(name: str, times: float) -> None:
        executions[name] += times
        for instruction in computations.get(name, ()):
            trips = 1
            if instruction.operation == "while":
                trips = _trip_count(instruction, computations)
                if trips is None:
                    unknown.add(instruction.name)
            for callee in instruction.called:
                if name in fused or instruction.operation not in CONTROL_FLOW:
                    fused.add(callee)
                visit(callee, times * (trips or 1))

    visit(entry, 1)
    return executions, fused, len(unknown)


def _trip_count(loop: Instruction, computations: dict[str, list[Instruction]]) -> int | None:
    """Return the trip count that the compiler notes, or that of the condition of a scan, `counter < length`."""
    if known := loop.attribute(r'"known_trip_count":\{"n":"(\d+)"\}'):
        return int(known)
    condition = computations.get(loop.attribute(r"\bcondition=%?([\w.\-]+)") or "", ())
    instructions = {instruction.name: instruction for instruction in condition}
    for comparison in condition:
        if comparison.operation == "compare" and "direction=LT" in comparison.rest and len(comparison.operands) == 2:
            limit = instructions.get(comparison.operands[1])
            if limit is not None and limit.operation == "constant" and (number := re.match(r"(\d+)\)", limit.rest)):
                return int(number[1])
    return None


def _tuple_origins(instructions: list[Instruction]) -> dict[tuple[str, int], str]:
    """Return (tuple, index) -> origin: the arrays of a collective of many have their origins where they are taken out."""
    elements = [element for element in instructions if element.operation == "get-tuple-element" and element.operands]
    return {(element.operands[0], int(element.attribute(r"index=(\d+)") or 0)): element.origin for element in elements}


def _collectives(instruction: Instruction, times: float, origins: dict[tuple[str, int], str]) -> list[Collective]:
    kind = instruction.operation.removesuffix("-start")
    if kind == "recv":
        return _between_slices(instruction, times)
    if kind not in COLLECTIVES:
        return []
    sizes = [array.size for array in parse_arrays(instruction.shape)]
    if instruction.operation in ("all-gather-start", "collective-permute-start"):
        sizes = sizes[1:2]  # (operand, result, …)
    group, name = _group_size(instruction.rest), instruction.name
    return [Collective(kind, size, group, times, origins.get((name, i), instruction.origin), i == 0) for i, size in enumerate(sizes)]


def _between_slices(instruction: Instruction, times: float) -> list[Collective]:
    """Return the reduction between slices that a transfer of the host is part of; it is started with others or alone."""
    kind = instruction.attribute(r'_xla_megascale_transfer_type="(\w+)"')
    if kind is None:
        return []
    slices = instruction.attribute(r'_xla_megascale_target="\{([^}]*)\}') or ""
    started = "AGGREGATE_STATUS_DEFER" not in instruction.rest
    size = parse_arrays(instruction.shape)[0].size
    name = kind.lower().replace("_", "-") + BETWEEN_SLICES
    return [Collective(name, size, slices.count(",") + 1, times, instruction.origin, started)]


def _group_size(rest: str) -> int:
    """Return the devices per group, from any notation of groups; 2 for a permutation."""
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        axes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        return math.prod(int(axes[axis]) for axis in re.findall(r"'([^']+)'", match[2]))
    return 2 if "source_target_pairs" in rest else 1
