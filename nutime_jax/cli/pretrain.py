"""Pretrain an encoder, with BYOL or another objective, then compare it with its untrained baseline on labelled datasets.

    nutime pretrain --config=quickstart --workdir=runs/quickstart
    nutime pretrain --config=quickstart --workdir=runs/mine --config.data.sources=my_folder --config.steps=5000
    nutime pretrain --config=continued --workdir=runs/mine --init_from=nutime-small --config.data.sources=my_folder

The workdir contains checkpoints, metrics (metrics.jsonl, tensorboard/) and results.csv. Rerun the same command to resume
from the last checkpoint. Any field of the configuration can be set with --config.section.field=value;
`nutime pretrain --config=quickstart --help` lists them.

--init_from starts a new run from an encoder: a pretrained name, a folder or a workdir. Its model, lengths and features are the
defaults of the configuration. Heads and target network of a run with the same objective are used as well; otherwise heads are
new, and the target copies the encoder. To train a finished run for more steps, start a new run from its workdir. The final
table compares the encoder before and after.

Several processes make one run: the same command in each, with --multihost=auto on Cloud TPU, Slurm and Kubernetes, or with
--multihost=HOST:PORT of process 0, and NUTIME_PROCESS=0 NUTIME_PROCESSES=4 in the environment.

Exit status: 0 finished; 2 bad input, with a one-line message; 3 training diverged; 4 a step hung, or another
process was lost; 75 preempted by SIGTERM, the state is saved; 130 interrupted. After 4, 75, 130 and a kill, rerun the same
command to resume.
"""

import argparse
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from nutime_jax.cli.arguments import ENCODER_HELP, add_columns, add_config, columns_of, run_path
from nutime_jax.cli.evaluate import compare_encoders, read_splits
from nutime_jax.config import PretrainConfig, load_config, values
from nutime_jax.errors import InputError
from nutime_jax.options import format_value

if TYPE_CHECKING:
    from nutime_jax.distributed.processes import ProcessGroup
    from nutime_jax.encoder import Encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--workdir", required=True, type=run_path, help="folder of the run, or gs://BUCKET/FOLDER; resumed if it has a checkpoint"
    )
    parser.add_argument("--init_from", metavar="ENCODER", help=f"encoder that a new run starts from: {ENCODER_HELP}")
    add_columns(parser)
    parser.add_argument("--devices", type=int, help="number of devices (default: all)")
    parser.add_argument("--multihost", default="off", help="off (default), auto, or HOST:PORT of process 0")
    parser.add_argument("--profile", action="store_true", help="write a trace of five steps to WORKDIR/profile")


def run(args: argparse.Namespace) -> None:
    config = None if args.init_from else load_config(args.config, args.overrides)
    from nutime_jax.distributed.processes import initialize_distributed

    with initialize_distributed(args.multihost) as processes:
        if not processes.is_primary:
            logging.getLogger().setLevel(logging.WARNING)
        start = None
        if args.init_from:
            from nutime_jax.loading import load_encoder

            start = load_encoder(args.init_from)
            config = load_config(args.config, args.overrides, encoder=start.config)
            _check_same_model(config, start.config, args)
        encoder = _pretrain(config, args, processes, start)
    # The other processes may exit now: process 0 alone makes the table.
    if not processes.is_primary:
        return
    if any(config.evaluation.sources):
        _compare(config, args, encoder, start)
    print(f"written to {args.workdir}; next: nutime evaluate --encoder={args.workdir} --dataset=…")


def _compare(config: PretrainConfig, args: argparse.Namespace, encoder: "Encoder", start: "Encoder | None") -> None:
    """Compare the encoder with its untrained baseline, or with the encoder that the run started from."""
    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.evaluation.encoders import NamedEncoder, describe_encoder
    from nutime_jax.evaluation.features import FeatureSpec
    from nutime_jax.loading import untrained_encoder

    name = args.init_from or f"untrained:{args.workdir}"
    first = start or untrained_encoder(config, trained=encoder)
    encoders = [
        NamedEncoder("untrained" if start is None else "initial", 0, first, describe_encoder(name, first)),
        NamedEncoder(args.workdir.name, 0, encoder, describe_encoder(str(args.workdir), encoder)),
    ]
    reads = [partial(read_splits, files) for files in find_all_datasets(config.evaluation.sources, columns=columns_of(args))]
    compare_encoders(encoders, reads, args.workdir / "results.csv", spec=FeatureSpec(**_feature_options(config)))


def _check_same_model(config: PretrainConfig, encoder: PretrainConfig, args: argparse.Namespace) -> None:
    """Raise InputError if weights of the encoder do not fit the model of the configuration."""
    ours, theirs = values(config.model), values(encoder.model)
    for name in theirs:
        if ours[name] != theirs[name] and name not in ("model.dropout", "model.stochastic_depth"):
            raise InputError(
                f"{name} is {format_value(ours[name])} in {args.config} and {format_value(theirs[name])} in {args.init_from}; "
                f"choose --config=continued, which has the model of the encoder, or --config.{name}={format_value(theirs[name])}"
            )


def _feature_options(config: PretrainConfig) -> dict[str, Any]:
    evaluation = config.evaluation
    return {"layer": evaluation.layer, "pooling": evaluation.pooling, "channels": evaluation.channels}


def _pretrain(config: PretrainConfig, args: argparse.Namespace, processes: "ProcessGroup", start: "Encoder | None") -> "Encoder":
    import numpy as np

    from nutime_jax.compilation_cache import enable_compilation_cache
    from nutime_jax.data.datasets import Cases, find_all_datasets
    from nutime_jax.distributed.mesh import gather_to_host
    from nutime_jax.encoder import Encoder
    from nutime_jax.evaluation.features import encode_cases
    from nutime_jax.evaluation.protocols.probes import monitor_accuracy
    from nutime_jax.loading import find_bundle, untrained_encoder
    from nutime_jax.training.loop import check_config, pretrain
    from nutime_jax.training.state import TrainState, encoder_variables

    enable_compilation_cache()
    check_config(config)
    options = _feature_options(config)
    # The evaluation at the end is tried first: a typo in its options must not cost the run.
    zeros = [np.zeros((1, 1), np.float32)]
    encode_cases(untrained_encoder(config).fit_normalisation(zeros), Cases(zeros, None), **options)
    columns = columns_of(args)
    find_all_datasets(config.evaluation.sources, columns=columns)
    # Test cases are for the table at the end; probes during training use only training cases.
    probe_cases = [files.read_labelled("train") for files in find_all_datasets(config.run.probe_sources, columns=columns)]

    measure = partial(monitor_accuracy, probe=config.run.probe, temperature=config.run.probe_temperature)

    def probe(state: TrainState) -> dict[str, float]:
        encoder = Encoder(config, gather_to_host(encoder_variables(state)))
        if not processes.is_primary:
            return {}
        accuracies = [measure(encode_cases(encoder.fit_normalisation(cases.series), cases, **options)) for cases in probe_cases]
        return {"probe_accuracy": sum(accuracies) / len(accuracies)}

    saved = args.init_from is not None and find_bundle(args.init_from)  # has no heads
    state = pretrain(
        config,
        args.workdir,
        probe=probe if probe_cases else None,
        init_from=start if start is None or saved else args.init_from,
        profile=args.profile,
        devices=args.devices,
        processes=processes,
        columns=columns,
    )
    return Encoder(config, gather_to_host(encoder_variables(state)))
