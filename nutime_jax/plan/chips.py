"""Chips and slices that a run can be planned for, with the peak numbers that their makers publish."""

import math
import re
from typing import NamedTuple

from nutime_jax.errors import InputError

CLOUD = "https://docs.cloud.google.com/tpu/docs/"


class Chip(NamedTuple):
    """Peak numbers of one chip. A device of jax is a chip on every one of these (v4 and v5p: two cores as one).

    passes: matrix product precision -> how many times the work of a product at `peak` it is.
    peak: FLOP/s of matrix products, dense, in the cheapest precision that float32 products take.
    memory: bytes of HBM; bandwidth: bytes/s of it.
    links: bytes/s that a chip sends over all links to its slice (TPU) or node (GPU), one way.
    network: bytes/s and chip between slices or nodes.
    clock: cycles/s, from `peak` and the size of the matrix units; None where the compiler counts no cycles.
    slice: most chips of one slice or node; axes: of its shape; ring: an axis of so many chips, or a multiple, closes to a ring.
    source: where the numbers are published. recalled: those that could not be looked up again.
    """

    passes: dict[str, float]
    peak: float
    memory: float
    bandwidth: float
    links: float
    network: float
    clock: float | None
    slice: int
    axes: int
    ring: int
    source: str
    recalled: str = ""


# One, three or six products of bfloat16 numbers make a float32 product of that precision.
TPU = {"default": 1, "high": 3, "highest": 6}
# TF32 on tensor cores, or float32 outside them at 67 TFLOP/s.
GPU = {"default": 1, "high": 1, "highest": 495 / 67}
_NVIDIA = "all but capacity, bandwidth and NVLink; 400 Gb/s of network a GPU is that of a DGX"

CHIPS = {
    # 1.1 PB/s of all-reduce a pod of 4,096 chips.
    "v4": Chip(TPU, 275e12, 32 * 2**30, 1200e9, 1.1e15 / 4096, 6.25e9, 1.05e9, 4096, 3, 4, CLOUD + "v4", "network, clock"),
    # 400 GB/s both ways, 6.4 Tb/s of network a pod of 256.
    "v5e": Chip(TPU, 197e12, 16e9, 819e9, 200e9, 6.4e12 / 8 / 256, 1.5e9, 256, 2, 16, CLOUD + "v5e", "clock, ring"),
    # 1,200 GB/s both ways, 50 Gb/s of network a chip; 6,144 chips are the largest job.
    "v5p": Chip(TPU, 459e12, 95 * 2**30, 2765e9, 600e9, 50e9 / 8, 1.75e9, 6144, 3, 4, CLOUD + "v5p", "clock"),
    # 800 GB/s both ways, 25.6 Tb/s of network a pod of 256.
    "v6e": Chip(TPU, 918e12, 32e9, 1600e9, 400e9, 25.6e12 / 8 / 256, 1.75e9, 256, 2, 16, CLOUD + "v6e", "clock, ring"),
    # SXM; NVLink is 900 GB/s both ways.
    "h100": Chip(GPU, 495e12, 80e9, 3.35e12, 450e9, 50e9, None, 8, 1, 1, "https://www.nvidia.com/en-us/data-center/h100/", _NVIDIA),
    "h200": Chip(GPU, 495e12, 141e9, 4.8e12, 450e9, 50e9, None, 8, 1, 1, "https://www.nvidia.com/en-us/data-center/h200/", _NVIDIA),
}


class Topology(NamedTuple):
    """A slice (TPU), or GPUs by their number."""

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def compiled(self) -> bool:
        """Whether there is a compiler that needs no such chip."""
        return self.chip.clock is not None

    @property
    def links(self) -> float:
        """Bytes/s that a chip sends in an all-reduce; half where an axis ends instead of closing to a ring."""
        closed = all(size % self.chip.ring == 0 or size == 1 for size in self.shape)
        return self.chip.links if closed else self.chip.links / 2


def parse_topology(text: str) -> Topology:
    """ "v5e:16x16" or "h100:8" -> Topology.

    Raises:
        InputError: another text, another chip, or a slice that is not made.
    """
    name, colon, size = text.partition(":")
    if not colon or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
        raise InputError(f"topology {text!r} is no such thing; write chip:shape, for instance v5e:16x16, v5p:8x8x8 or h100:8")
    if name not in CHIPS:
        raise InputError(f"topology {text!r} has an unknown chip; choose one of {', '.join(CHIPS)}")
    chip, shape = CHIPS[name], tuple(int(one) for one in size.split("x"))
    if len(shape) != chip.axes:
        example = "x".join(["4"] * chip.axes)
        raise InputError(f"topology {text!r} has {len(shape)} axes; a slice of {name} has {chip.axes}, for instance {name}:{example}")
    topology = Topology(text, chip, shape)
    if topology.compiled and topology.chips > chip.slice:
        raise InputError(f"topology {text!r} has {topology.chips} chips; a slice of {name} has at most {chip.slice}")
    return topology
