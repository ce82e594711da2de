"""Chips and slices, with the peak rates that their makers publish."""

import math
import re
from typing import NamedTuple

from nutime_jax.errors import InputError

CLOUD = "https://docs.cloud.google.com/tpu/docs/"


class Chip(NamedTuple):
    """Peak rates of one chip. A JAX device is one chip, also on v4 and v5p, where two cores are one device.

    passes: precision of float32 matmuls, or bfloat16 -> cost of a matmul relative to one at `peak`.
    peak: FLOP/s of dense matmuls in the cheapest precision for float32 operands.
    memory: bytes of HBM. bandwidth: bytes/s of HBM.
    links: bytes/s that a chip sends to its slice (TPU) or node (GPU) over all links, in one direction.
    network: bytes/s per chip between slices or nodes.
    hop, network_hop: seconds of latency from chip to neighbour, and between slices or nodes; estimates.
    clock: cycles/s, from `peak` and the size of the matrix units; None where the compiler estimates no cycles.
    slice: maximum number of chips per slice or node. axes: number of axes of its shape. ring: an axis closes to a ring if its
        length is a multiple of this.
    source: URL of the published values. recalled: values that were not verified there.
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
    hop: float = 1e-6
    network_hop: float = 25e-6


# A float32 matmul of these precisions needs 1, 3 or 6 bfloat16 matmuls.
TPU = {"bfloat16": 1, "default": 1, "high": 3, "highest": 6}
# TF32 on tensor cores; float32 outside them runs at 67 TFLOP/s.
GPU = {"bfloat16": 0.5, "default": 1, "high": 1, "highest": 495 / 67}
_NVIDIA = "all but capacity, bandwidth and NVLink; 400 Gb/s of network per GPU as in a DGX"

CHIPS = {
    # 1.1 PB/s of all-reduce per pod of 4,096 chips.
    "v4": Chip(TPU, 275e12, 32 * 2**30, 1200e9, 1.1e15 / 4096, 6.25e9, 1.05e9, 4096, 3, 4, CLOUD + "v4", "network, clock"),
    # 400 GB/s in both directions, 6.4 Tb/s of network per pod of 256.
    "v5e": Chip(TPU, 197e12, 16e9, 819e9, 200e9, 6.4e12 / 8 / 256, 1.5e9, 256, 2, 16, CLOUD + "v5e", "clock, ring"),
    # 1,200 GB/s in both directions, 50 Gb/s of network per chip; the largest job has 6,144 chips.
    "v5p": Chip(TPU, 459e12, 95 * 2**30, 2765e9, 600e9, 50e9 / 8, 1.75e9, 6144, 3, 4, CLOUD + "v5p", "clock"),
    # 800 GB/s in both directions, 25.6 Tb/s of network per pod of 256.
    "v6e": Chip(TPU, 918e12, 32e9, 1600e9, 400e9, 25.6e12 / 8 / 256, 1.75e9, 256, 2, 16, CLOUD + "v6e", "clock, ring"),
    # SXM; NVLink has 900 GB/s in both directions.
    "h100": Chip(GPU, 495e12, 80e9, 3.35e12, 450e9, 50e9, None, 8, 1, 1, "https://www.nvidia.com/en-us/data-center/h100/", _NVIDIA),
    "h200": Chip(GPU, 495e12, 141e9, 4.8e12, 450e9, 50e9, None, 8, 1, 1, "https://www.nvidia.com/en-us/data-center/h200/", _NVIDIA),
}


DEVICE_KINDS = {
    "v4": ("TPU v4",),
    "v5e": ("TPU v5 lite", "TPU v5e"),
    "v5p": ("TPU v5", "TPU v5p"),
    "v6e": ("TPU v6 lite", "TPU v6e"),
    "h100": ("NVIDIA H100 80GB HBM3",),
    "h200": ("NVIDIA H200",),
}
"""Names of chips in JAX (`Device.device_kind`)."""


def chip_of(device_kind: str) -> Chip | None:
    """Return the chip that JAX names so, or None."""
    return next((CHIPS[name] for name, kinds in DEVICE_KINDS.items() if device_kind in kinds), None)


class Topology(NamedTuple):
    """One or more TPU slices of a shape, or a number of GPUs."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def slice_size(self) -> int:
        """Return the chips per slice; GPUs are in nodes of `Chip.slice`."""
        return math.prod(self.shape) if self.compiled else self.chip.slice

    @property
    def compiled(self) -> bool:
        """Return whether the compiler works without such a chip."""
        return self.chip.clock is not None

    @property
    def links(self) -> float:
        """Return the bytes/s that a chip sends in an all-reduce: half if an axis does not close to a ring."""
        closed = all(size % self.chip.ring == 0 or size == 1 for size in self.shape)
        return self.chip.links if closed else self.chip.links / 2


def parse_topology(text: str) -> Topology:
    """Parse "v5e:16x16", "2*v5e:16x16" (two slices) or "h100:8".

    Raises:
        InputError: the text is malformed, the chip is unknown, or there is no such slice.
    """
    count, star, slice_text = text.rpartition("*")
    name, colon, size = slice_text.partition(":")
    if star and not re.fullmatch(r"[1-9]\d*", count):
        raise InputError(f"Topology {text!r} is malformed. Write slices*chip:shape, for example 2*v5e:16x16.")
    if not colon or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size):
        raise InputError(f"Topology {text!r} is malformed. Write chip:shape, for example v5e:16x16, v5p:8x8x8 or h100:8.")
    if name not in CHIPS:
        raise InputError(f"Topology {text!r} has an unknown chip. Choose one of {', '.join(CHIPS)}.")
    chip, shape = CHIPS[name], tuple(map(int, size.split("x")))
    if len(shape) != chip.axes:
        example = "x".join(["4"] * chip.axes)
        raise InputError(f"Topology {text!r} has {len(shape)} axes. A slice of {name} has {chip.axes}, for example {name}:{example}.")
    topology = Topology(text, chip, shape, slices=int(count or 1))
    if topology.compiled and math.prod(shape) > chip.slice:
        raise InputError(f"Topology {text!r} has {math.prod(shape)} chips per slice. A slice of {name} has at most {chip.slice}.")
    if topology.slices > 1 and not topology.compiled:
        raise InputError(f"Topology {text!r} has several slices. Write the number of all GPUs, for example {name}:16.")
    return topology
