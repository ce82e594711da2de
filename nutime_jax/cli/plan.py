"""Estimate memory, traffic, step time and hours of a run on accelerators you do not have.

    nutime plan --config=nutime_paper --topology=v5e:16x16
    nutime plan --config=nutime_paper --topology=v5p:8x8x8 --config.batch_size=4096 --scaling
    nutime plan --config=nutime_paper --topology=h100:8 --json=plan.json

For TPUs (v4, v5e, v5p, v6e) the real training step is compiled for every chip of the slice. This needs the compiler
(pip install 'nutime_jax[tpu]') and minutes, but no TPU; a batch that does not fit is rejected. For GPUs (h100, h200) the
step is analysed, not compiled: its values are lower bounds. Times are roofline estimates from published peaks.
"""

import argparse
import json
import os
from pathlib import Path

from nutime_jax.cli.arguments import add_config, user_path
from nutime_jax.config import load_config
from nutime_jax.errors import InputError

SCALING = (1, 4, 16, 64, 256, 1024, 4096)
"""Numbers of chips of --scaling."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="TPU slice, as v5e:16x16, or GPUs, as h100:8")
    parser.add_argument(
        "--scaling", action="store_true", help="also predict 1 to 4,096 chips, with equal rows per chip and with an equal batch"
    )
    parser.add_argument("--corpus", metavar="POINTS,SERIES", help="size of a corpus that is held in device memory")
    parser.add_argument("--json", type=user_path, metavar="FILE", help="also write all values to FILE")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.distributed.chips import parse_topology

    config, topology = load_config(args.config, args.overrides), parse_topology(args.topology)
    size = _corpus_size(args.corpus)
    if args.json and not args.json.parent.is_dir():
        raise InputError(f"Cannot write {args.json} (its folder does not exist); choose another --json")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with its compiler installed, JAX would look for a TPU
    from nutime_jax.plan.estimate import make_plan, render_plan
    from nutime_jax.training.input_pipeline import CorpusSize

    plan = make_plan(config, topology, size=None if size is None else CorpusSize(*size), chips=SCALING if args.scaling else ())
    print(render_plan(plan))
    if args.json:
        _write(plan, args.json)


def _write(plan: dict, path: Path) -> None:
    try:
        path.write_text(json.dumps(plan, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"Cannot write {path} ({error.strerror}); choose another --json") from error


def _corpus_size(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"--corpus is {text!r}; write time points and series, as --corpus=11700000,69063")
    return [int(part) for part in parts]
