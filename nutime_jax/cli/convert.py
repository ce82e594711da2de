"""Convert weights of the official PyTorch implementation to an encoder of this library, or back.

    nutime convert checkpoint.pth encoders/official
    nutime convert checkpoint.safetensors encoders/official --config=release.json --network=target
    nutime convert encoders/official official.pth
    nutime convert runs/quickstart byol.pth
    nutime convert hf://user/plant plant.safetensors

A file (.pth, .safetensors or .npz) becomes a folder that every command accepts as an encoder. The command prints what it
found, and for a BYOL checkpoint whether its target network ever moved. Sizes follow from the arrays; settings that leave no
trace in them (--heads, ablations) have their official defaults unless given. The folder of an encoder becomes a file of the
encoder's arrays, a workdir of `nutime pretrain` a file of BYOL's, with the names of the official implementation. A .pth file
needs PyTorch (the extra `torch`); code in it is never executed.
"""

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nutime_jax.cli.arguments import ENCODER_HELP, encoder_path, user_path
from nutime_jax.errors import InputError

if TYPE_CHECKING:
    from nutime_jax.convert.encoders import ConversionResult

OFFICIAL_HIDDEN_RATIO = 16
"""Hidden width of the official heads of BYOL per output width."""
TORCH_ONLY = {"official_config": "--config", "heads": "--heads", "network": "--network", "length": "--length"}
"""Flags that apply to files of PyTorch weights, by attribute."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=encoder_path, help=f"file of PyTorch weights; or an encoder: {ENCODER_HELP}")
    parser.add_argument("out", type=user_path, help="folder of the encoder; or file of PyTorch weights (.safetensors, .pth)")
    parser.add_argument("--config", dest="official_config", type=user_path, help="official JSON configuration of the checkpoint")
    parser.add_argument("--heads", type=int, help="number of attention heads (default: heads of width 64, the official default)")
    parser.add_argument("--network", help="network of a BYOL checkpoint: online (default) or target (its moving average)")
    parser.add_argument("--length", type=int, help="time points to which series are resized (default: 32 windows, the official default)")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.loading import list_pretrained

    if isinstance(args.source, str) or args.source.is_dir() or str(args.source) in list_pretrained():
        flags = [flag for name, flag in TORCH_ONLY.items() if getattr(args, name) is not None]
        if flags:
            raise InputError(f"{flags[0]} is for files of PyTorch weights, and {args.source} is an encoder or a workdir; remove it")
        _to_torch(args.source, args.out)
    else:
        _from_torch(args)


def _to_torch(source: str | Path, out: Path) -> None:
    from nutime_jax.convert.encoders import torch_state_of
    from nutime_jax.convert.torch_files import find_writer, write_state

    find_writer(out)
    state, settings = torch_state_of(source)
    write_state(out, state, settings)
    kind = "BYOL" if any(name.startswith("momentum_backbone.") for name in state) else "an encoder"
    print(f"{len(state)} arrays of {kind} written to {out}")
    if out.suffix == ".safetensors":
        print("The official implementation loads only .pth files; with PyTorch installed, convert to one.")
    if kind == "BYOL":
        width, hidden = state["predictor.3.weight"].shape
        if hidden != OFFICIAL_HIDDEN_RATIO * width:
            expected = f"{OFFICIAL_HIDDEN_RATIO * width} ({OFFICIAL_HIDDEN_RATIO} times the output width)"
            print(f"The official implementation cannot load the heads: their hidden width is {hidden}, not {expected}.")


def _from_torch(args: argparse.Namespace) -> None:
    from nutime_jax.bundle import check_output_dir
    from nutime_jax.convert.encoders import encoder_from_torch
    from nutime_jax.convert.settings import check_settings, read_official_config
    from nutime_jax.convert.torch_files import read_state
    from nutime_jax.encoder import KIND

    check_output_dir(args.out, kind=KIND)
    config = {} if args.official_config is None else read_official_config(args.official_config)
    state = read_state(args.source)
    config = {**check_settings(state.config), **config}
    if args.heads is not None:
        config = {**config, **check_settings({"transformer_heads": args.heads})}
        config.pop("transformer_head_dim", None)
    converted = encoder_from_torch(state.arrays, config, network=args.network or "online", length=args.length)
    lines = list(_describe(converted))
    converted.encoder.save(args.out, card=_card(args.source, lines))
    print("\n".join(lines))
    print(f"written to {args.out}")


def _describe(converted: "ConversionResult") -> Iterator[str]:
    """Yield one line per finding."""
    model = converted.encoder.config.model
    scales = f"{len(model.scales)} scales from {min(model.scales):g} to {max(model.scales):g}"
    yield (
        f"{converted.kind}; the encoder has {converted.parameters:,} parameters, depth {model.depth}, width {model.width}, "
        f"heads {model.num_heads} x {model.head_dim}, MLP {model.mlp_dim}, window {model.window_size}, "
        f"{'no scales' if model.window_stats == 'none' else scales}"
    )
    if converted.assumed:
        yield f"assumed, the official defaults: {', '.join(converted.assumed)}"
    if "fusion" in converted.encoder.variables["params"]["embedding"]:
        yield "the channel fusion is saved but not used: embed encodes each channel alone, fine-tuning initialises a new fusion"
    if converted.target_drift is not None:
        yield converted.target_drift.verdict
    if converted.dropped:
        yield f"omitted: {', '.join(converted.dropped)}"


def _card(source: Path, lines: list[str]) -> str:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    findings = "\n".join(f"- {line}" for line in lines)
    return f"""# Encoder converted from PyTorch weights

Converted from `{source.name}` (SHA-256 {digest}). Licence and training data are those of that file.

{findings}
"""
