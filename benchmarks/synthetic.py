"""Throughput of the synthetic generator: python -m benchmarks.synthetic [seconds per size].

Median and fastest of the calls within the given time (default 2 s), after one call that is not counted. Each call has another
key and is waited for. The last line is JSON: versions, device, and the same results.
"""

import json
import os
import platform
import statistics
import sys
import time

import jax

from nutime_jax.synthetic import synthetic_series

LENGTHS = (128, 512, 2048)
BATCHES = (64, 256, 1024)


def measure(count: int, length: int, seconds: float) -> dict[str, float]:
    """Compile time in seconds, median and fastest call in milliseconds, series per second at the median."""
    keys = jax.random.split(jax.random.key(0), 4096)
    start = time.perf_counter()
    program = synthetic_series.lower(keys[0], count=count, length=length).compile()
    compiled = time.perf_counter() - start
    jax.block_until_ready(program(keys[0]))

    calls, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(calls) < 5:
        key = jax.block_until_ready(keys[len(calls) % len(keys)])
        start = time.perf_counter()
        jax.block_until_ready(program(key))
        calls.append(time.perf_counter() - start)
    median = statistics.median(calls)
    return {
        "length": length,
        "batch": count,
        "ms": 1e3 * median,
        "fastest_ms": 1e3 * min(calls),
        "series_per_s": count / median,
        "compile_s": compiled,
    }


def main(seconds: float) -> None:
    print("length  batch  ms a batch  fastest  series/s  compile s")
    rows = []
    for length in LENGTHS:
        for count in BATCHES:
            row = measure(count, length, seconds)
            rows.append(row)
            print(
                f"{length:6d} {count:6d} {row['ms']:11.2f} {row['fastest_ms']:8.2f} {row['series_per_s']:9.0f} {row['compile_s']:10.2f}",
                flush=True,
            )
    device = jax.devices()[0]
    versions = {"jax": jax.__version__, "python": platform.python_version(), "platform": device.platform, "device": device.device_kind}
    print(json.dumps({**versions, "cpus": os.cpu_count(), "load": os.getloadavg()[0], "rows": rows}))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
