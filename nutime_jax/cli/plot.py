"""Plot features, embeddings, views or training curves to a PNG or SVG file.

    nutime plot embedding --encoder=nutime-small --dataset=GunPoint --out=embedding.png
    nutime plot occlusion --model=models/gunpoint --data=GunPoint --split=test --case=3 --out=why.png
    nutime plot attention --encoder=nutime-small --data=GunPoint --split=test --case=3 --out=attention.svg
    nutime plot nme --encoder=nutime-small --out=nme.svg
    nutime plot views --config=quickstart --dataset=GunPoint --out=views.svg
    nutime plot training runs/quickstart runs/mine --out=training.svg

`nutime plot FIGURE --help` explains the flags of a figure. Figures need matplotlib (the extra `report`).
"""

import argparse

from nutime_jax.cli.arguments import (
    ENCODER_HELP,
    Action,
    add_actions,
    add_channels,
    add_columns,
    add_config,
    add_data,
    add_dataset,
    add_encoder,
    choose_split,
    columns_of,
    one_dataset,
    open_encoder,
    user_path,
)
from nutime_jax.config import load_config
from nutime_jax.errors import InputError

MAX_CASES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_actions(parser, FIGURES, name="figure")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.report.style import check_figure_path, save_figure

    check_figure_path(args.out)
    save_figure(FIGURES[args.figure].run(args), args.out)
    print(f"written to {args.out}")


def _embedding_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    add_dataset(parser)
    parser.add_argument("--method", default="pca", help="pca (default), or tsne, which shows neighbourhoods but no distances")
    add_channels(parser)
    _add_out(parser)


def _plot_embedding(args: argparse.Namespace):
    """Plot the features of a dataset in two dimensions: train cases filled, test cases hollow, one colour per class."""
    import numpy as np

    from nutime_jax.evaluation.features import encode_cases
    from nutime_jax.report.plots import check_projection, plot_embedding

    check_projection(args.method)
    files = one_dataset(args.dataset, flag="--dataset")
    splits = ["train"] if files.test is None else ["train", "test"]
    cases = [files.read(split) for split in splits]
    encoder = open_encoder(args).fit_normalisation(cases[0].series)
    options = {"layer": args.layer, "pooling": args.pooling, "channels": args.channels}
    encoded = [encode_cases(encoder, split, **options) for split in cases]
    labelled = all(split.labels is not None for split in encoded)
    return plot_embedding(
        np.concatenate([split.features for split in encoded]),
        np.concatenate([split.labels for split in encoded]) if labelled else None,
        filled=np.repeat([name == "train" for name in splits], [len(split.features) for split in encoded]),
        method=args.method,
        title=f"{files.name}, features of {args.encoder}{', test cases hollow' if 'test' in splits else ''}",
    )


def _occlusion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=user_path, help="folder that `nutime fit` wrote")
    _add_case(parser)
    parser.add_argument("--size", type=int, help="time points of a window (default: a tenth of the series)")
    _add_out(parser)


def _plot_occlusion(args: argparse.Namespace):
    """Plot which windows of a series decided: how much the probability of the predicted class drops without each."""
    from nutime_jax.evaluation.explanations import occlude
    from nutime_jax.finetuning.saved import load_classifier
    from nutime_jax.report.plots import plot_occlusion

    name, series = _read_case(args)
    found = occlude(load_classifier(args.model), series, size=args.size)
    return plot_occlusion(found, title=f"{name}: class {found.label} with probability {found.probability:.2f}")


def _attention_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", required=True, help=ENCODER_HELP)
    _add_case(parser)
    _add_out(parser)


def _plot_attention(args: argparse.Namespace):
    """Plot how much the CLS token attends to each window of a series, by block, averaged over heads."""
    from nutime_jax.evaluation.explanations import attention_maps
    from nutime_jax.loading import load_encoder
    from nutime_jax.report.plots import plot_attention

    name, series = _read_case(args)
    return plot_attention(attention_maps(load_encoder(args.encoder), series), title=f"{name}, attention of {args.encoder}")


def _add_case(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    add_columns(parser)
    parser.add_argument("--case", type=int, default=0, help="number of the case, from 0 (default: 0)")


def _read_case(args: argparse.Namespace):
    """Return the name of dataset and case, and the series, of the flags of `_add_case`."""
    files = one_dataset(args.data, flag="--data", columns=columns_of(args))
    cases = files.read(choose_split(files, args.split))
    if not 0 <= args.case < len(cases.series):
        raise InputError(f"--case is {args.case}; choose 0 to {len(cases.series) - 1}")
    return f"{files.name}, case {args.case if cases.ids is None else cases.ids[args.case]}", cases.series[args.case]


def _nme_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", required=True, help=ENCODER_HELP)
    _add_out(parser)


def _plot_nme(args: argparse.Namespace):
    """Plot the numerically multi-scaled embedding of scalars over twelve orders of magnitude and both signs."""
    from nutime_jax.loading import load_encoder
    from nutime_jax.report.nme import plot_nme

    return plot_nme(load_encoder(args.encoder))


def _views_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_dataset(parser)
    parser.add_argument("--cases", type=int, default=3, help="number of training cases, spread over the classes (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the crops (default: 0)")
    _add_out(parser)


def _plot_views(args: argparse.Namespace):
    """Plot training series of a dataset next to two views of each, as a pretraining step makes them."""
    from nutime_jax.report.plots import plot_views, spread_over_classes
    from nutime_jax.training.loop import check_config

    config = load_config(args.config, args.overrides)
    check_config(config)
    if not 1 <= args.cases <= MAX_CASES:
        raise InputError(f"--cases is {args.cases}; choose 1 to {MAX_CASES}")
    files = one_dataset(args.dataset, flag="--dataset")
    cases = files.read("train")
    series = [cases.series[index][0] for index in spread_over_classes(cases, args.cases)]
    crop = config.augment.crop_ratio
    title = f"{files.name}, crops of {crop[0]:.0%} to {crop[1]:.0%} ({config.name})"
    return plot_views(series, length=config.length, crop=crop, seed=args.seed, title=title)


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdirs", nargs="+", type=user_path, metavar="WORKDIR", help="workdirs of `nutime pretrain`")
    _add_out(parser)


def _plot_training(args: argparse.Namespace):
    """Plot loss, projection std, probe accuracy and gradient norm over the steps of one or more runs."""
    from nutime_jax.report.plots import plot_training

    return plot_training(args.workdirs)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=user_path, help="file of the figure: .png or .svg")


FIGURES = {
    "embedding": Action("features of a dataset in two dimensions", _embedding_arguments, _plot_embedding),
    "occlusion": Action("windows of a series that decided its class", _occlusion_arguments, _plot_occlusion),
    "attention": Action("attention of the CLS token to the windows of a series", _attention_arguments, _plot_attention),
    "nme": Action("embedding of scalars over twelve orders of magnitude", _nme_arguments, _plot_nme),
    "views": Action("series, and two augmented views of each", _views_arguments, _plot_views),
    "training": Action("metrics of runs over their steps", _training_arguments, _plot_training),
}
