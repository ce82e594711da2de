"""Accuracy when the unit changes: test splits are multiplied by powers of ten.

    python -m benchmarks.rescale --encoder=nutime-small --sources=bundled
    python -m benchmarks.rescale --sources=archives/ucr --figure=docs/figures/rescale.svg

A ridge classifier on frozen features, default splits. Either both splits are in the other unit, or only the test split: then the
classifier was not trained at that scale. Compared with the untrained baseline and raw series.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.records import machine, write_results

POWERS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
BOTH, ALONE = "both splits", "test split alone"


def measure(encoder: str, sources: list[str]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return dataset -> multiplied splits -> method -> accuracy in percent at each of POWERS."""
    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.evaluation.features import FeatureSet, encode_cases, raw_features, read_task
    from nutime_jax.loading import load_encoder, untrained_encoder

    loaded = load_encoder(encoder)
    baseline = untrained_encoder(loaded.config)
    methods: dict[str, Callable] = {
        "encoder": lambda cases: encode_cases(loaded, cases, channels="concat"),
        "untrained": lambda cases: encode_cases(baseline, cases, channels="concat"),
        "raw": lambda cases: raw_features(cases, length=loaded.config.length),
    }
    results: dict[str, dict] = {}
    for files in find_all_datasets(sources):
        task = read_task(files)
        found = results[files.name] = {kind: {name: [] for name in methods} for kind in (BOTH, ALONE)}
        for name, features in methods.items():
            known: FeatureSet = features(task.train)
            for power in POWERS:
                train, test = (features(_times(cases, 10.0**power)) for cases in (task.train, task.test))
                found[BOTH][name].append(_accuracy(train, test))
                found[ALONE][name].append(_accuracy(known, test))
        print(files.name, {name: np.round(found[ALONE][name], 1).tolist() for name in methods}, flush=True)
    return results


def _times(cases, factor: float):
    return dataclasses.replace(cases, series=[values * np.float32(factor) for values in cases.series])


def _accuracy(train, test) -> float:
    from nutime_jax.evaluation.protocols.probes import probe_metrics

    return 100 * probe_metrics("ridge", train, test)["accuracy"]


def draw(means: dict[str, dict[str, list[float]]]):
    """Plot mean accuracy against the power of ten, one panel per choice of splits."""
    from nutime_jax.report.style import COLOURS, LINES, styled

    @styled
    def figure():
        from matplotlib.figure import Figure

        sheet = Figure(figsize=(8, 3.2), layout="constrained")
        for axes, (kind, methods) in zip(sheet.subplots(1, 2, sharey=True), means.items(), strict=True):
            for (name, values), colour, line in zip(methods.items(), COLOURS, LINES, strict=False):
                axes.plot(POWERS, values, line, color=colour, marker="o", markersize=3, label=name)
            axes.set(title=f"{kind} times 10^k", xlabel="k", ylim=(0, 100))
            axes.legend(frameon=False)
        sheet.axes[0].set_ylabel("accuracy in %, mean over sets")
        return sheet

    return figure()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="nutime-small", help="a shipped encoder, a workdir or a checkpoint (default: nutime-small)")
    parser.add_argument("--sources", default="bundled", help="sets, files or folders, separated by commas (default: bundled)")
    parser.add_argument("--out", type=Path, help="file for the results")
    parser.add_argument("--figure", type=Path, help="file for the figure, .svg or .png")
    args = parser.parse_args()
    sets = measure(args.encoder, args.sources.split(","))
    kinds = {kind: next(iter(sets.values()))[kind] for kind in (BOTH, ALONE)}
    means = {kind: {name: np.mean([found[kind][name] for found in sets.values()], 0).tolist() for name in kinds[kind]} for kind in kinds}
    write_results({"powers": POWERS, "means": means, "sets": sets, "encoder": args.encoder, "machine": machine("jax", "numpy")}, args.out)
    if args.figure:
        from nutime_jax.report.style import save_figure

        save_figure(draw(means), args.figure)


if __name__ == "__main__":
    main()
