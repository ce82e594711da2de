"""Turns weights of the official PyTorch implementation into an encoder of this library, and back.

    nutime convert checkpoint.pth encoders/official
    nutime convert checkpoint.safetensors encoders/official --config=release.json --network=target
    nutime convert encoders/official official.safetensors
    nutime convert runs/quickstart byol.pth

A file (.pth, .safetensors or .npz) becomes a folder, which every command takes as an encoder; what was found is said, and
for a BYOL checkpoint whether its target network ever moved. Sizes are read off the arrays; what leaves no trace there
(--heads, ablations) is as released unless it is given. An encoder's folder becomes a file with the encoder's arrays, a
workdir of `nutime pretrain` one with BYOL's, in the names of the official implementation. A .pth needs PyTorch (the extra
`torch`), and nothing in it is executed.
"""

import argparse
import hashlib
from pathlib import Path

from nutime_jax.cli.evaluate import user_path
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=user_path, help="file of PyTorch weights; or an encoder's name or folder, a workdir, a checkpoint")
    parser.add_argument("out", type=user_path, help="folder of the encoder; or file of PyTorch weights (.safetensors, .pth)")
    parser.add_argument("--config", dest="release", type=user_path, help="the release's JSON configuration of the checkpoint")
    parser.add_argument("--heads", type=int, help="attention heads (default: as many as are 64 wide, as released)")
    parser.add_argument("--network", help="network of a BYOL checkpoint: online (default) or target (its moving average)")
    parser.add_argument("--length", type=int, help="points that series are resized to (default: 32 windows, as released)")


OPTIONS = {"release": "--config", "heads": "--heads", "network": "--network", "length": "--length"}


def run(args: argparse.Namespace) -> None:
    from nutime_jax.loading import shipped_encoders

    if args.source.is_dir() or str(args.source) in shipped_encoders():
        if given := [flag for name, flag in OPTIONS.items() if getattr(args, name) is not None]:
            raise InputError(f"{given[0]} is for files of PyTorch weights, and {args.source} is none; leave it out")
        _to_torch(args.source, args.out)
    else:
        _from_torch(args)


def _to_torch(source: Path, out: Path) -> None:
    from nutime_jax.convert.encoders import torch_state_of
    from nutime_jax.convert.torch_files import find_writer, write_state

    find_writer(out)
    state = torch_state_of(source)
    write_state(out, state)
    kind = "BYOL" if any(name.startswith("momentum_backbone.") for name in state) else "an encoder"
    print(f"{len(state)} arrays of {kind} written to {out}")


def _from_torch(args: argparse.Namespace) -> None:
    from nutime_jax.bundle import check_target
    from nutime_jax.convert.encoders import encoder_from_torch
    from nutime_jax.convert.settings import check_settings, read_release_config
    from nutime_jax.convert.torch_files import read_state
    from nutime_jax.encoder import KIND

    check_target(args.out, kind=KIND)
    config = {} if args.release is None else read_release_config(args.release)
    if args.heads is not None:
        config = {**config, **check_settings({"transformer_heads": args.heads})}
        config.pop("transformer_head_dim", None)
    found = encoder_from_torch(read_state(args.source), config, network=args.network or "online", length=args.length)
    lines = list(describe(found))
    found.encoder.save(args.out, card=_card(args.source, lines))
    print("\n".join(lines))
    print(f"written to {args.out}")


def describe(found):
    """What was found, a line each."""
    model = found.encoder.config.model
    scales = (
        "no scales" if model.statistics == "none" else f"{len(model.scales)} scales from {min(model.scales):g} to {max(model.scales):g}"
    )
    yield (
        f"{found.kind}; the encoder has {found.parameters:,} parameters, depth {model.depth}, width {model.width}, "
        f"heads {model.heads} x {model.head_dim}, MLP {model.mlp_dim}, window {model.window}, {scales}"
    )
    if found.assumed:
        yield f"assumed, as released, for nothing tells: {', '.join(found.assumed)}"
    if "fusion" in found.encoder.variables["params"]["embedding"]:
        yield "the fusion of channels is kept and unused: embedding encodes every channel alone, fine-tuning makes its own"
    if found.twin is not None:
        yield found.twin.verdict
    if found.left_out:
        yield f"left out: {', '.join(found.left_out)}"


def _card(source: Path, lines: list[str]) -> str:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    found = "\n".join(f"- {line}" for line in lines)
    return f"""# Encoder converted from PyTorch weights

Converted from `{source.name}` (SHA-256 {digest}). Terms and training data are those of that file.

{found}
"""
