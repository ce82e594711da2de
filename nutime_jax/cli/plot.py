"""Draws what an encoder makes of series, or how its training went, to a PNG or SVG file.

    nutime plot embedding --encoder=nutime-small --dataset=GunPoint --out=embedding.png
    nutime plot nme --encoder=nutime-small --out=nme.svg
    nutime plot views --config=quickstart --dataset=GunPoint --out=views.svg
    nutime plot training runs/quickstart runs/mine --out=training.svg

`nutime plot FIGURE --help` explains the flags of a figure. Figures need matplotlib, which the extra `report` brings.
"""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import dataclass

from nutime_jax.cli.evaluate import user_path
from nutime_jax.config import PretrainConfig, load_config, shipped_configs
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    figures = parser.add_subparsers(dest="figure", required=True, metavar="FIGURE")
    for name, figure in FIGURES.items():
        one = figures.add_parser(
            name,
            help=figure.summary,
            description=inspect.getdoc(figure.draw),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        figure.add_arguments(one)
        one.add_argument("--out", required=True, type=user_path, help="the file: .png or .svg")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.report.figures import check_figure_path, save_figure

    check_figure_path(args.out)
    save_figure(FIGURES[args.figure].draw(args), args.out)
    print(f"written to {args.out}")


def _embedding_arguments(parser: argparse.ArgumentParser) -> None:
    _encoder_argument(parser)
    parser.add_argument("--dataset", required=True, help="a bundled set, a file, or a folder that holds one set")
    parser.add_argument("--method", default="pca", help="pca (default), or tsne: neighbourhoods without distances")
    parser.add_argument("--layer", type=int, help="layer to read; 0 is before the first block (default: the last, normalised)")
    parser.add_argument("--pooling", help="cls, mean, cls+mean or all_layers, which is that of every layer (default: the encoder's)")
    parser.add_argument("--channels", default="concat", help="mean or concat over channels (default: concat)")


def _draw_embedding(args: argparse.Namespace):
    """Draws the features of the cases of a set in two dimensions: training cases filled, test cases hollow, a colour a class."""
    import numpy as np

    from nutime_jax.cli.finetune import one_set
    from nutime_jax.evaluation.features import encode_cases
    from nutime_jax.loading import load_encoder
    from nutime_jax.report.embedding import check_method, draw_embedding

    check_method(args.method)
    files = one_set(args.dataset, flag="--dataset")
    splits = {"train": files.read("train")} | ({} if files.test is None else {"test": files.read("test")})
    encoder = load_encoder(args.encoder)
    options = {"layer": args.layer, "pooling": args.pooling, "channels": args.channels}
    encoded = [encode_cases(encoder, cases, **options) for cases in splits.values()]
    labelled = all(one.labels is not None for one in encoded)
    of_train = np.repeat([name == "train" for name in splits], [len(one.features) for one in encoded])
    hollow = ", test cases hollow" if "test" in splits else ""
    return draw_embedding(
        np.concatenate([one.features for one in encoded]),
        np.concatenate([one.labels for one in encoded]) if labelled else None,
        filled=of_train,
        method=args.method,
        title=f"{files.name}, features of {args.encoder}{hollow}",
    )


def _nme_arguments(parser: argparse.ArgumentParser) -> None:
    _encoder_argument(parser)


def _draw_nme(args: argparse.Namespace):
    """Draws the numerically multi-scaled embedding of scalars over twelve decades and both signs."""
    from nutime_jax.loading import load_encoder
    from nutime_jax.report.nme import draw_nme

    return draw_nme(load_encoder(args.encoder))


def _views_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(schema=PretrainConfig)
    parser.add_argument("--config", required=True, help=f"a shipped configuration ({', '.join(shipped_configs())}) or a path to a .py file")
    parser.add_argument("--dataset", required=True, help="a bundled set, a file, or a folder that holds one set")
    parser.add_argument("--cases", type=int, default=3, help="training cases, of as many classes as there are (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the crops (default: 0)")


def _draw_views(args: argparse.Namespace):
    """Draws training series of a set beside two views of each, as a step of pretraining makes them."""
    from nutime_jax.cli.finetune import one_set
    from nutime_jax.report.views import draw_views, spread_over_classes
    from nutime_jax.training.loop import check_config

    config = load_config(args.config, args.overrides)
    check_config(config)
    if not 1 <= args.cases <= 12:
        raise InputError(f"--cases={args.cases} does not fit a figure; choose 1 to 12")
    files = one_set(args.dataset, flag="--dataset")
    cases = files.read("train")
    series = [cases.series[place][0] for place in spread_over_classes(cases, args.cases)]
    crop = config.augment.crop
    title = f"{files.name}, crops of {crop[0]:.0%} to {crop[1]:.0%} ({config.name})"
    return draw_views(series, length=config.length, crop=crop, seed=args.seed, title=title)


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdirs", nargs="+", type=user_path, metavar="WORKDIR", help="workdir of `nutime pretrain`, or several")


def _draw_training(args: argparse.Namespace):
    """Draws loss, spread of the projections, probe and gradient over the steps of one run or several."""
    from nutime_jax.report.training import draw_training

    return draw_training(args.workdirs)


def _encoder_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", required=True, help="a shipped encoder, a saved one, or a workdir of `nutime pretrain`")


@dataclass(frozen=True)
class Figure:
    """A figure of `nutime plot`."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    draw: Callable[[argparse.Namespace], object]


FIGURES = {
    "embedding": Figure("features of a set in two dimensions", _embedding_arguments, _draw_embedding),
    "nme": Figure("the embedding of scalars over twelve decades", _nme_arguments, _draw_nme),
    "views": Figure("series, and two augmented views of each", _views_arguments, _draw_views),
    "training": Figure("metrics of runs over their steps", _training_arguments, _draw_training),
}
