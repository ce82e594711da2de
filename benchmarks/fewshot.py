"""Few-shot accuracy: ridge with a Gaussian kernel, and linear ridge, trained on five cases per class, on features of an encoder, of its
untrained baseline and of aeon's MiniRocket, and on raw series.

    python -m benchmarks.fewshot --encoder=nutime-small --sources=bundled

Default splits; equal samples and classifiers for all. Datasets with fewer training cases per class than shots are skipped and listed.
MiniRocket is fitted to all training series, without labels, resized to one length.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.expect import resized
from benchmarks.records import machine, write_results


def measure(encoder: str, sources: list[str], *, shots: int, tasks: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return dataset -> method -> mean accuracy in percent over the samples, and the skipped datasets."""
    from aeon.transformations.collection.convolution_based import MiniRocket

    from nutime_jax.data.datasets import find_all_datasets
    from nutime_jax.evaluation.features import FeatureSet, encode_cases, read_task
    from nutime_jax.evaluation.protocols.fewshot import fewshot_metrics
    from nutime_jax.loading import load_encoder, untrained_encoder

    loaded = load_encoder(encoder)
    encoders = {"encoder": loaded, "untrained": untrained_encoder(loaded.config)}
    results, left_out = {}, []
    for files in find_all_datasets(sources):
        task = read_task(files)
        if np.unique(task.train.labels, return_counts=True)[1].min() < shots:
            left_out.append(files.name)
            continue
        (train, train_labels), (test, test_labels) = resized(task)
        rocket = MiniRocket(random_state=0).fit(train)
        splits = {
            name: [encode_cases(encoder, cases, channels="concat") for cases in (task.train, task.test)]
            for name, encoder in encoders.items()
        }
        splits["minirocket"] = [FeatureSet(np.asarray(rocket.transform(x)), y) for x, y in ((train, train_labels), (test, test_labels))]
        splits["raw"] = [FeatureSet(x.reshape(len(x), -1), y) for x, y in ((train, train_labels), (test, test_labels))]
        results[files.name] = {
            f"{name}, {head}": 100 * fewshot_metrics(*pair, shots=shots, tasks=tasks, head=head)["accuracy"]
            for name, pair in splits.items()
            for head in ("kernel", "ridge")
        }
        print(files.name, {name: round(value, 1) for name, value in results[files.name].items()}, flush=True)
    return results, left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="nutime-small", help="a shipped encoder, a workdir or a checkpoint (default: nutime-small)")
    parser.add_argument("--sources", default="bundled", help="sets, files or folders, separated by commas (default: bundled)")
    parser.add_argument("--shots", type=int, default=5, help="cases per class (default: 5)")
    parser.add_argument("--tasks", type=int, default=20, help="number of samples (default: 20)")
    parser.add_argument("--out", type=Path, help="file for the results")
    args = parser.parse_args()
    sets, left_out = measure(args.encoder, args.sources.split(","), shots=args.shots, tasks=args.tasks)
    means = {name: float(np.mean([found[name] for found in sets.values()])) for name in next(iter(sets.values()))}
    about = {"shots": args.shots, "tasks": args.tasks, "encoder": args.encoder, "machine": machine("jax", "numpy", "aeon")}
    write_results({"means": means, "sets": sets, "left_out": left_out, **about}, args.out)


if __name__ == "__main__":
    main()
