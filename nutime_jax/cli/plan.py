"""Says what a run takes on chips that are not here: memory, traffic, step time, hours.

    nutime plan --config=nutime_base --topology=v5e:16x16
    nutime plan --config=nutime_base --topology=v5p:8x8x8 --config.batch_size=4096 --scaling
    nutime plan --config=nutime_base --topology=h100:8 --json=plan.json

For TPUs (v4, v5e, v5p, v6e) the real training step is compiled for every chip of the slice, which needs the compiler
(pip install 'nutime_jax[tpu]') and minutes, but no TPU; a batch that does not fit is refused. For GPUs (h100, h200) the
step is analysed, not compiled: its numbers are lower bounds. Times are those of the published peaks.
"""

import argparse
import json
import os
from pathlib import Path

from nutime_jax.config import PretrainConfig, load_config, shipped_configs
from nutime_jax.errors import InputError

SCALING = (1, 4, 16, 64, 256, 1024, 4096)
"""Numbers of chips that --scaling predicts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(shipped_configs())
    parser.set_defaults(schema=PretrainConfig)
    parser.add_argument("--config", required=True, help=f"a shipped configuration ({names}) or a path to a .py file")
    parser.add_argument("--topology", required=True, metavar="CHIP:SHAPE", help="a slice of TPUs, as v5e:16x16, or GPUs, as h100:8")
    parser.add_argument("--scaling", action="store_true", help="predict 1 to 4,096 chips too, with the same rows a chip and the same batch")
    parser.add_argument("--corpus", metavar="POINTS,SERIES,CLASSES", help="size of the corpus, which counts where data.resident is true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to a file")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.plan.chips import parse_topology

    config, topology = load_config(args.config, args.overrides), parse_topology(args.topology)
    size = _corpus_size(args.corpus)
    if args.json and not args.json.expanduser().parent.is_dir():
        raise InputError(f"cannot write {args.json}, whose folder does not exist; choose another --json")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with its compiler installed, jax would look for a TPU
    from nutime_jax.plan.table import render_plan
    from nutime_jax.plan.work import make_plan
    from nutime_jax.training.input_pipeline import CorpusSize

    plan = make_plan(config, topology, size=None if size is None else CorpusSize(*size), chips=SCALING if args.scaling else ())
    print(render_plan(plan))
    if args.json is None:
        return
    try:
        args.json.expanduser().write_text(json.dumps(plan, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {args.json} ({error.strerror}); choose another --json") from error


def _corpus_size(text: str | None) -> list[int] | None:
    if text is None:
        return None
    numbers = text.split(",")
    if len(numbers) != 3 or not all(one.isdigit() and int(one) for one in numbers):
        raise InputError(f"--corpus={text} is no size; write points, series and classes, as --corpus=11700000,69063,800")
    return [int(one) for one in numbers]
