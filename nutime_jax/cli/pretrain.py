"""Pretrains an encoder, with BYOL or another objective, then compares it with its untrained twin on labelled sets.

    nutime pretrain --config=quickstart --workdir=runs/quickstart
    nutime pretrain --config=quickstart --workdir=runs/mine --config.data.sources=my_folder --config.steps=5000

The workdir holds checkpoints, metrics (metrics.jsonl, tensorboard/) and results.csv. The same command, given again,
goes on from the last checkpoint. Any field of the configuration can be set with --config.section.field=value;
`nutime pretrain --config=quickstart --help` lists them.

Several processes make one run: the same command in each, with --multihost=auto on Cloud TPU, Slurm and Kubernetes, or
with --multihost=HOST:PORT of the first process, and NUTIME_PROCESS=0 NUTIME_PROCESSES=4 in the environment.

Exit status: 0 done; 2 bad input, said in a sentence; 3 training diverged; 4 a step hung; 75 told to stop by SIGTERM, the
state is saved; 130 interrupted. After 4, 75, 130 and a kill the same command goes on.
"""

import argparse
import logging
from typing import TYPE_CHECKING, Any

from nutime_jax.cli.evaluate import compare_sets, run_path
from nutime_jax.config import PretrainConfig, load_config, shipped_configs

if TYPE_CHECKING:
    from nutime_jax.distributed.processes import Processes
    from nutime_jax.encoder import Encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(shipped_configs())
    parser.set_defaults(schema=PretrainConfig)
    parser.add_argument("--config", required=True, help=f"a shipped configuration ({names}) or a path to a .py file")
    parser.add_argument(
        "--workdir", required=True, type=run_path, help="folder of the run, or gs://BUCKET/FOLDER; resumed if it holds a checkpoint"
    )
    parser.add_argument("--init_from", type=run_path, help="workdir or checkpoint whose weights a new run starts from")
    parser.add_argument("--devices", type=int, help="how many devices to use (default: all)")
    parser.add_argument("--multihost", default="off", help="off (default), auto, or host:port of the first of several processes")
    parser.add_argument("--profile", action="store_true", help="write a trace of five steps to WORKDIR/profile")


def run(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.overrides)
    from nutime_jax.distributed.processes import join_processes

    with join_processes(args.multihost) as processes:
        if not processes.first:
            logging.getLogger().setLevel(logging.WARNING)
        encoder = _pretrain(config, args, processes)
    # From here on every process is for itself: the first one has a table to make.
    if processes.first and any(config.evaluation.sources):
        from nutime_jax.loading import untrained_encoder

        encoders = {"untrained": untrained_encoder(config, trained=encoder), "pretrained": encoder}
        compare_sets(encoders, config.evaluation.sources, args.workdir / "results.csv", **_options(config))


def _options(config: PretrainConfig) -> dict[str, Any]:
    return {"layer": config.evaluation.layer, "pooling": config.evaluation.pooling, "channels": config.evaluation.channels}


def _pretrain(config: PretrainConfig, args: argparse.Namespace, processes: "Processes") -> "Encoder":
    import numpy as np

    from nutime_jax.data.datasets import Cases, find_all_datasets
    from nutime_jax.distributed.mesh import fetch
    from nutime_jax.encoder import Encoder
    from nutime_jax.evaluation.features import encode_cases
    from nutime_jax.evaluation.protocols.probes import cross_validated_accuracy
    from nutime_jax.loading import untrained_encoder
    from nutime_jax.training.loop import check_config, pretrain
    from nutime_jax.training.state import TrainState, encoder_variables

    check_config(config)
    options = _options(config)
    # What is only needed at the end is tried at the start: a typo must not cost the run.
    encode_cases(untrained_encoder(config), Cases([np.zeros((1, 1), np.float32)], None), **options)
    find_all_datasets(config.evaluation.sources)
    # Test cases are for the table at the end; what is watched during training comes from training cases alone.
    watched = [one.read("train") for one in find_all_datasets(config.run.probe_sources)]

    def probe(state: TrainState) -> dict[str, float]:
        encoder = Encoder(config, fetch(encoder_variables(state)))
        if not processes.first:
            return {}
        scores = [cross_validated_accuracy("ridge", encode_cases(encoder, cases, **options)) for cases in watched]
        return {"probe": sum(scores) / len(scores)}

    state = pretrain(
        config,
        args.workdir,
        probe=probe if watched else None,
        init_from=args.init_from,
        profile=args.profile,
        devices=args.devices,
        processes=processes,
    )
    return Encoder(config, fetch(encoder_variables(state)))
