"""Cost of embedding: memory and throughput of `nutime embed` on many series, and seconds until the first features.

    python -m benchmarks.embed
    python -m benchmarks.embed --counts=20000,100000 --out=benchmarks/results/embed.json

Series are noise of length 512: as .npz (deflated), as wide Parquet (in groups of 10,000 rows, and in one group, whose dictionaries
a reader holds in memory), and as a corpus. A separate process embeds them with a pretrained encoder; its peak memory is that of the
command, and its throughput includes start-up. Start-up is that of three lines that embed the train split of GunPoint, with an
empty (first) and a filled (second) compilation cache; medians of three new processes each.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.records import machine, write_results

REPEATS = 3
LENGTH = 512
BLOCK = 10_000

THREE_LINES = """
import time; start = time.perf_counter()
import aeon.datasets
loaded = time.perf_counter()
from nutime_jax import load_encoder
X, y = aeon.datasets.load_gunpoint(split="train")
ready = time.perf_counter()
features = load_encoder("nutime-small").embed(X)
print(loaded - start, time.perf_counter() - ready)
"""

COMMAND = """
import json, sys, time
from nutime_jax.cli.main import main
start = time.perf_counter()
status = main(sys.argv[1:])
seconds = time.perf_counter() - start
# Not `ru_maxrss`: a process inherits that of its parent.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([status, seconds, peak / 1e3]))
"""


def make_npz(path: Path, count: int) -> Path:
    """Write noise, block by block."""
    import zipfile

    import numpy as np

    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open("X.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (count, LENGTH)})
        for first in range(0, count, BLOCK):
            member.write(rng.normal(size=(min(BLOCK, count - first), LENGTH)).astype(np.float32).tobytes())
    return path


def make_parquet(path: Path, count: int, *, group: int = BLOCK) -> Path:
    import numpy as np
    import pyarrow
    import pyarrow.parquet

    series = np.random.default_rng(0).normal(size=(count, LENGTH)).astype(np.float32)
    table = pyarrow.table({"id": np.arange(count), **{f"t{i}": series[:, i] for i in range(LENGTH)}})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


def make_corpus(path: Path, count: int) -> Path:
    import numpy as np

    from nutime_jax.data.corpus import open_corpus

    source = path.with_name(f"{path.name}.npy")
    np.save(source, np.random.default_rng(0).normal(size=(count, LENGTH)).astype(np.float32))
    open_corpus([str(source)], data_dir=path, max_length=4096)
    return path


SOURCES = {
    "npz": (".npz", make_npz),
    "parquet": (".parquet", make_parquet),
    "parquet_one_group": (".parquet", lambda path, count: make_parquet(path, count, group=count)),
    "corpus": ("", make_corpus),
}


def embed(source: Path, out: Path) -> dict[str, float]:
    arguments = ["embed", "--encoder=nutime-small", f"--data={source}", f"--out={out}"]
    run = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=True)
    status, seconds, megabytes = json.loads(run.stdout.splitlines()[-1])
    if status:
        raise RuntimeError(run.stderr)
    return {"seconds": seconds, "peak_mb": megabytes}


def start(cache: Path) -> dict[str, float]:
    """Return wall and CPU seconds of a new process that runs the three lines; CPU time is independent of other work."""
    before = os.times()
    begin = time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    run = subprocess.run([sys.executable, "-c", THREE_LINES], env=environment, capture_output=True, text=True, check=True)
    whole = time.perf_counter() - begin
    if run.stderr:
        raise RuntimeError(f"The process printed warnings: {run.stderr}")
    imports, features = map(float, run.stdout.split())
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": whole, "processor_seconds": processor, "import_aeon": imports, "load_and_embed": features}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def measure(counts: list[int]) -> dict[str, object]:
    results: dict[str, object] = {"encoder": "nutime-small", "length": LENGTH}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        first, second = [], []
        for number in range(REPEATS):
            cache = folder / f"cache{number}"
            first.append(start(cache))
            second.append(start(cache))
        results["start"] = {"first": median(first), "second": median(second)}
        for form, (suffix, make) in SOURCES.items():
            for count in counts:
                source = make(folder / f"{form}_{count}{suffix}", count)
                found = embed(source, folder / "features.npy")
                results[f"{form}_{count}"] = {**found, "series_per_second": count / found["seconds"]}
                print(form, count, results[f"{form}_{count}"], flush=True)
                shutil.rmtree(source) if source.is_dir() else source.unlink()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="20000,100000", help="numbers of series; empty: start-up only (default: 20000,100000)")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    args = parser.parse_args()
    results = measure([int(count) for count in args.counts.split(",") if count])
    results["machine"] = {**machine("jax", "numpy", "pyarrow", "array-record"), "load": os.getloadavg()[2]}
    write_results(results, args.out)


if __name__ == "__main__":
    main()
