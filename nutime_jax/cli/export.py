"""Export an encoder as a StableHLO program that runs without this library, on CPU, GPU and TPU.

    nutime export --encoder=runs/quickstart --out=exported/quickstart
    nutime export --encoder=encoders/official --out=exported/inner --layer=3 --pooling=mean

The folder contains the program (made by jax.export; any number of series, any length), the weights, the configuration, and
a card with five lines of Python that run the program; they need only jax and flatbuffers. Every command accepts the folder
as an encoder. An older JAX cannot load the program of a newer one: archive weights and configuration, and export again.
Classifiers cannot be exported.
"""

import argparse

from nutime_jax.cli.arguments import add_encoder, open_encoder, user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    parser.add_argument("--out", required=True, type=user_path, help="folder of the program; an older encoder in it is replaced")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.bundle import PROGRAM, check_output_dir
    from nutime_jax.encoder import KIND
    from nutime_jax.export import export_encoder, read_card

    check_output_dir(args.out, kind=KIND)
    encoder = open_encoder(args)
    folder = export_encoder(encoder, args.out, layer=args.layer, pooling=args.pooling, card=read_card(args.encoder))
    size = (folder / PROGRAM).stat().st_size
    print(f"{args.out / PROGRAM}: {size / 1e6:.1f} MB; card.md contains the code that runs it")
