"""Pretrains an encoder with BYOL, then compares it with its untrained twin on labelled sets.

    nutime pretrain --config=quickstart --workdir=runs/quickstart
    nutime pretrain --config=quickstart --workdir=runs/mine --config.data.sources=my_folder --config.steps=5000

The workdir holds checkpoints, metrics (metrics.jsonl, tensorboard/) and results.csv. The same command, given again,
goes on from the last checkpoint. Any field of the configuration can be set with --config.section.field=value.
"""

import argparse

from nutime_jax.cli.config import load_config, shipped_configs
from nutime_jax.cli.evaluate import compare_sets, user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(shipped_configs())
    parser.add_argument("--config", required=True, help=f"a shipped configuration ({names}) or a path to a .py file")
    parser.add_argument("--workdir", required=True, type=user_path, help="folder of the run; resumed if it holds a checkpoint")
    parser.add_argument("--init_from", type=user_path, help="workdir or checkpoint whose weights a new run starts from")
    parser.add_argument("--devices", type=int, help="how many devices to use (default: all)")
    parser.add_argument("--profile", action="store_true", help="write a trace of five steps to WORKDIR/profile")


def run(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.overrides)
    import numpy as np

    from nutime_jax.data.archives import Cases, find_all
    from nutime_jax.encoder import Encoder, load_encoder, untrained_encoder
    from nutime_jax.evaluation.features import encode_cases
    from nutime_jax.evaluation.probes import cross_validated_accuracy
    from nutime_jax.train.loop import check_config, pretrain
    from nutime_jax.train.state import TrainState, encoder_variables

    check_config(config)
    untrained = untrained_encoder(config)
    options = {"layer": config.evaluation.layer, "readout": config.evaluation.readout, "channels": config.evaluation.channels}
    # What is only needed at the end is tried at the start: a typo must not cost the run.
    encode_cases(untrained, Cases([np.zeros((1, 1), np.float32)], None), **options)
    find_all(config.evaluation.sources)
    # Test cases are for the table at the end; what is watched during training comes from training cases alone.
    watched = [one.read("train") for one in find_all(config.run.probe_sources)]

    def probe(state: TrainState) -> dict[str, float]:
        encoder = Encoder(config, encoder_variables(state))
        scores = [cross_validated_accuracy("ridge", encode_cases(encoder, cases, **options)) for cases in watched]
        return {"probe": sum(scores) / len(scores)}

    pretrain(
        config,
        args.workdir,
        probe=probe if watched else None,
        init_from=args.init_from,
        profile=args.profile,
        devices=args.devices,
    )
    if any(config.evaluation.sources):
        encoders = {"untrained": untrained, "pretrained": load_encoder(args.workdir)}
        compare_sets(encoders, config.evaluation.sources, args.workdir / "results.csv", **options)
