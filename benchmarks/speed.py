"""Speed of training steps and embedding, compared with a PyTorch reference, with the matmul peak and across sizes.

    python -m benchmarks.speed
    python -m benchmarks.speed --parts=step,embed --rounds=7 --out=benchmarks/results/speed.json
    python -m benchmarks.speed --against=benchmarks/results/speed.json

Parts: matmuls (the peak), step, embed, sizes, start, feed (the input pipeline). Candidates alternate round by round in one process,
so that other work slows all of them. Results are medians over rounds with the lowest and highest; `ratio` is the median of the ratios
per round. FLOPs are those of matmuls by formula, without recomputation; `peak_fraction` is their rate over the peak of float32 matmuls
in JAX. On a CPU the PyTorch reference runs on the same cores (extra `torch`); on an accelerator it is omitted. `--against` lists
results that are more than 20 % lower, and exits with status 1 if there are any.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.records import machine, write_results

LENGTH = 512
PARTS = ("matmuls", "step", "embed", "sizes", "start", "feed")
BATCHES = (1, 2, 4, 16, 64, 256, 1024)
COMPILED = ("1", "256")
"""Batches for which the PyTorch reference is also compiled, half a minute each."""

FIRST_STEP = """
import time; start = time.perf_counter()
import jax, nutime_jax.training.loop, nutime_jax.config
imported = time.perf_counter()
from nutime_jax.compilation_cache import enable_compilation_cache
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.training.input_pipeline import make_input_pipeline
from nutime_jax.training.program import build_program
enable_compilation_cache()
config, mesh = nutime_jax.config.load_config("smoke", ["data.synthetic_fraction=1"]), make_mesh(1)
feed = make_input_pipeline(config.data, None, mesh, batch_size=config.batch_size, seed=config.seed, steps=config.steps)
program = build_program(config, mesh=mesh)
jax.block_until_ready(program.step(program.init(), next(feed.iterate(0))))
print(imported - start, time.perf_counter() - imported)
"""


def alternate(calls: dict[str, Callable[[], object]], *, rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Return the seconds of each call per round; the first round, which compiles, is not counted."""
    seconds = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            time.sleep(0.02)  # threads of the previous call may still spin
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            if number:
                seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def describe(seconds: list[float], *, series: int, flops: float, peak: float) -> dict[str, float]:
    """Return series per second (median, lowest, highest), and the fraction of the matmul peak at the median."""
    rates = sorted(series / duration for duration in seconds)
    median = statistics.median(rates)
    return {"rate": median, "lowest": rates[0], "highest": rates[-1], "peak_fraction": median * flops / series / peak}


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the speed-up: the median of the ratios per round."""
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def matmuls(size: int = 2048) -> dict[str, float]:
    """Return FLOP/s of square matmuls by library and dtype, the best of ten."""
    import jax
    import jax.numpy as jnp

    calls = {}
    for dtype in ("float32", "bfloat16"):
        x = jnp.ones((size, size), dtype)
        matmul = jax.jit(partial(jnp.matmul, precision="highest" if dtype == "float32" else None))
        calls[f"jax_{dtype}"] = lambda x=x, matmul=matmul: matmul(x, x).block_until_ready()
    if has_reference():
        import torch

        for dtype in ("float32", "bfloat16"):
            x = torch.ones(size, size, dtype=getattr(torch, dtype))
            calls[f"torch_{dtype}"] = lambda x=x: x @ x
    return {name: 2 * size**3 / min(seconds) for name, seconds in alternate(calls, rounds=10).items()}


def has_reference() -> bool:
    """Return whether the PyTorch reference can be measured here."""
    import jax

    return jax.default_backend() == "cpu" and importlib.util.find_spec("torch") is not None


def training(overrides: tuple[str, ...]) -> tuple[Callable[[], object], float, int, int]:
    """Return a step of `nutime_paper` on a fixed batch, its FLOPs, the bytes of its temporary buffers, and its batch size."""
    import jax
    import numpy as np

    from benchmarks.matmul_formula import step_flops
    from nutime_jax.config import load_config
    from nutime_jax.distributed.mesh import make_global_batch, make_mesh
    from nutime_jax.training.input_pipeline import corpus_views
    from nutime_jax.training.program import build_program

    config = load_config("nutime_paper", ["batch_size=256", *overrides])
    mesh, rows, length = make_mesh(), config.batch_size, config.length
    series = np.random.default_rng(0).normal(size=(rows, length)).astype(np.float32)
    batch = make_global_batch({"series": series, "length": np.full(rows, length, np.int32), "offset": np.zeros(rows, np.float32)}, mesh)
    views = partial(corpus_views, size=length, ratio=tuple(config.augment.crop_ratio))
    program = build_program(config, views=(views,), mesh=mesh)
    compiled = program.step.lower(program.state, batch).compile()
    states = [program.init()]

    def step() -> None:
        state, _ = compiled(states.pop(), batch)
        states.append(jax.block_until_ready(state))

    return step, step_flops(config), compiled.memory_analysis().temp_size_in_bytes, rows


def steps(peak: float, *, rounds: int) -> dict[str, dict]:
    """Measure the training step at batch 256, and that of the PyTorch reference."""
    step, flops, temporaries, rows = training(("matmul_precision=highest",))
    calls = {"jax": step}
    if has_reference():
        import torch

        from benchmarks.torch_reference import make_step

        first, second = torch.randn(rows, LENGTH), torch.randn(rows, LENGTH)
        options = {"torch_eager": {}, "torch_bfloat16": {"autocast": True}, "torch_compiled": {"compiled": True}}
        calls |= {name: partial(make_step(**option), first, second) for name, option in options.items()}
    seconds = alternate(calls, rounds=rounds)
    found = {name: describe(durations, series=rows, flops=flops, peak=peak) for name, durations in seconds.items()}
    for name in set(found) - {"jax"}:
        found[name]["ratio"] = ratio(seconds["jax"], seconds[name])
    found["jax"]["temporaries_bytes"] = temporaries
    return found


def embedding(peak: float, *, rounds: int) -> dict[str, dict]:
    """Measure `Encoder.embed` of the base model and the forward pass of the PyTorch reference, also on cases of mixed lengths."""
    import jax
    import numpy as np

    from benchmarks.matmul_formula import embedding_flops
    from nutime_jax.config import load_config
    from nutime_jax.loading import untrained_encoder

    encoder = untrained_encoder(load_config("nutime_paper"))
    flops_per_series = embedding_flops(encoder.network, length=LENGTH)
    rng = np.random.default_rng(0)
    batches = BATCHES if jax.default_backend() == "cpu" else (256, 4096)
    cases = {str(count): rng.normal(size=(count, LENGTH)).astype(np.float32) for count in batches}
    cases["mixed"] = [rng.normal(size=length).astype(np.float32) for length in rng.integers(50, 2000, 256)]
    found = {}
    for name, X in cases.items():
        calls = {"jax": partial(encoder.embed, X, batch_size=max(len(X), 256))}
        if has_reference():
            from benchmarks.torch_reference import make_embed

            options = {"eager": {}, "bfloat16": {"autocast": True}}
            options |= {"compiled": {"compiled": True}} if name in COMPILED else {}
            for kind, option in options.items():
                calls[f"torch_{kind}"] = partial(_embed_by_reference, make_embed(**option), X)
        seconds = alternate(calls, rounds=rounds, repeats=max(1, 64 // len(X)))
        found[name] = {kind: describe(times, series=len(X), flops=flops_per_series * len(X), peak=peak) for kind, times in seconds.items()}
        for kind in set(calls) - {"jax"}:
            found[name][kind]["ratio"] = ratio(seconds["jax"], seconds[kind])
    return found


def _embed_by_reference(embed: Callable, X) -> None:
    import torch

    if isinstance(X, list):
        resized = [torch.nn.functional.interpolate(torch.from_numpy(x)[None, None], LENGTH, mode="linear")[0] for x in X]
        embed(torch.cat(resized))
    else:
        embed(torch.from_numpy(X))


def sizes(peak: float, *, rounds: int) -> dict[str, dict]:
    """Measure the training step by batch, length and depth: rate, fraction of the peak, temporary buffers."""
    cases = {f"batch {batch}": (f"batch_size={batch}",) for batch in (32, 128, 512, 2048)}
    for length in (64, 256, 1024, 4096):  # as many time points per batch as 64 series of length 512
        cases[f"length {length}"] = (f"length={length}", f"batch_size={64 * LENGTH // length}")
    cases |= {f"depth {depth}": (f"model.depth={depth}", "batch_size=64") for depth in (2, 4, 8)}
    found = {}
    for name, overrides in cases.items():
        step, flops, temporaries, rows = training(("matmul_precision=highest", *overrides))
        seconds = alternate({"jax": step}, rounds=max(2, rounds // 2))["jax"]
        found[name] = {**describe(seconds, series=rows, flops=flops, peak=peak), "temporaries_bytes": temporaries}
    return found


def start() -> dict[str, float]:
    """Return the seconds to import, and from there to the end of the first step of `smoke`, with an empty and a filled cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        run = partial(subprocess.run, [sys.executable, "-c", FIRST_STEP], env=environment, capture_output=True, text=True, check=True)
        imports, firsts = zip(*(map(float, run().stdout.split()) for _ in range(4)), strict=True)
    return {"import": statistics.median(imports), "first_step": firsts[0], "first_step_again": statistics.median(firsts[1:])}


def feed(*, rounds: int) -> dict[str, float]:
    """Measure `quickstart` with the streamed input pipeline and with a fixed batch: series per second, and their ratio."""
    import jax

    from nutime_jax.config import load_config
    from nutime_jax.data.corpus import open_corpus
    from nutime_jax.distributed.mesh import make_mesh
    from nutime_jax.training.input_pipeline import make_input_pipeline
    from nutime_jax.training.program import build_program

    config, mesh = load_config("quickstart", ["data.sources=bundled"]), make_mesh()
    with tempfile.TemporaryDirectory() as folder:
        corpus = open_corpus(list(config.data.sources), data_dir=Path(folder), max_length=config.data.max_length)
        source = make_input_pipeline(config.data, corpus, mesh, batch_size=config.batch_size, seed=config.seed, steps=config.steps)
        stream = source.iterate(0)
        program = build_program(config, mesh=mesh)
        fixed, states = next(stream), [program.init()]

        def step(next_batch: Callable[[], object]) -> None:
            state, metrics = program.step(states.pop(), next_batch())
            states.append(state)
            jax.block_until_ready(metrics)

        calls = {"streamed": partial(step, lambda: next(stream)), "fixed": partial(step, lambda: fixed)}
        seconds = alternate(calls, rounds=2 * rounds, repeats=3)
    rates = {name: config.batch_size / statistics.median(durations) for name, durations in seconds.items()}
    return {**rates, "ratio": ratio(seconds["streamed"], seconds["fixed"])}


def compare(now: dict, before: dict, *, path: str = "") -> list[str]:
    """Return rates and ratios that are more than 20 % lower."""
    slower = []
    for name in now.keys() & before.keys():
        new, old = now[name], before[name]
        if isinstance(new, dict) and isinstance(old, dict):
            slower += compare(new, old, path=f"{path}{name}.")
        elif name in ("rate", "ratio") and new < 0.8 * old:
            slower.append(f"{path}{name}: {old:.3g} -> {new:.3g}")
    return sorted(slower)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each comparison (default: 5)")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    parser.add_argument("--against", type=Path, help="earlier results; the exit status is 1 if any result is more than 20 %% lower")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"part {unknown[0]!r} is unknown; choose from {', '.join(PARTS)}")
    found = {"matmul_flops_per_second": matmuls()}
    peak = found["matmul_flops_per_second"]["jax_float32"]
    measured = {
        "step": partial(steps, peak, rounds=args.rounds),
        "embed": partial(embedding, peak, rounds=args.rounds),
        "sizes": partial(sizes, peak, rounds=args.rounds),
        "start": start,
        "feed": partial(feed, rounds=args.rounds),
    }
    found |= {name: measured[name]() for name in parts if name != "matmuls"}
    found["machine"] = machine("jax", "jaxlib", "flax", *(("torch",) if has_reference() else ()))
    write_results(found, args.out)
    slower = compare(found, json.loads(args.against.read_text())) if args.against else []
    for line in slower:
        print(f"slower: {line}", file=sys.stderr)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
