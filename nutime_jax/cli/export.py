"""Makes a program of an encoder, which runs without this library, on CPU, GPU and TPU.

    nutime export --encoder=runs/quickstart --out=exported/quickstart
    nutime export --encoder=encoders/official --out=exported/inner --layer=3 --pooling=mean

The folder holds the program (by jax.export; any number of series, any length), the weights, the configuration, and a card
with the five lines of Python that run the program: they need jax and flatbuffers alone. It is an encoder's folder as well,
which every command takes. A program is not read by an older JAX than made it: weights and configuration are the archive,
and this command makes the program anew. Classifiers are not exported.
"""

import argparse

from nutime_jax.cli.evaluate import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder", required=True, help="name of a shipped encoder, an encoder's folder, a workdir of `nutime pretrain`, or one checkpoint"
    )
    parser.add_argument("--out", required=True, type=user_path, help="folder of the program; an older encoder there is replaced")
    parser.add_argument("--layer", type=int, help="layer that is read out (default: the last, normalised)")
    parser.add_argument("--pooling", help="cls, mean, cls+mean or all_layers, which is that of every layer (default: the encoder's)")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.bundle import PROGRAM, check_target
    from nutime_jax.encoder import KIND
    from nutime_jax.export import export_encoder, read_card
    from nutime_jax.loading import load_encoder

    check_target(args.out, kind=KIND)
    encoder = load_encoder(args.encoder)
    folder = export_encoder(encoder, args.out, layer=args.layer, pooling=args.pooling, card=read_card(args.encoder))
    size = (folder / PROGRAM).stat().st_size
    print(f"{args.out / PROGRAM}: {size / 1e6:.1f} MB; card.md says how it is run")
