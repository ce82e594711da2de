"""Fine-tunes a pretrained encoder on a labelled set, scores the test split once, and saves the classifier.

    nutime finetune --encoder=runs/quickstart --dataset=GunPoint --out=models/gunpoint
    nutime finetune --encoder=runs/quickstart --dataset=my_folder/Pumps_TRAIN.ts --out=models/pumps --strategy=head --ensemble_size=5

Epoch and learning rate are chosen on cases carved from the training split; a test split, where there is one, is scored
once, at the end. `nutime predict --model=FOLDER` applies the classifier to a file. With --selection=test the test
split chooses epoch and rate, as the paper's numbers were made: the accuracy that is then printed is no estimate.
"""

import argparse

from nutime_jax.cli.evaluate import encoder_path, user_path
from nutime_jax.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder", required=True, type=encoder_path, help="a shipped encoder, a workdir of `nutime pretrain`, or one checkpoint"
    )
    parser.add_argument("--dataset", required=True, help="a bundled set, a file, or a folder that holds one set")
    parser.add_argument("--out", required=True, type=user_path, help="folder of the classifier; an older classifier there is replaced")
    parser.add_argument("--strategy", help="full: train everything (default). head: leave the encoder as it is")
    parser.add_argument("--epochs", type=int, help="passes over the training cases, at most (default: 60)")
    parser.add_argument("--min_updates", type=int, help="small sets are gone through until so many updates are made (default: 0)")
    parser.add_argument(
        "--refit", action="store_true", default=None, help="train anew on all training cases once rate and epoch are chosen"
    )
    parser.add_argument("--batch_size", type=int, help="cases an update (default: 16)")
    parser.add_argument("--learning_rates", help="learning rates to try, separated by commas (default: 3e-4,1e-3,3e-3)")
    parser.add_argument("--ensemble_size", type=int, help="networks whose probabilities are averaged (default: 1)")
    parser.add_argument("--pooling", help="what the head sees: cls (default), mean, cls+mean, or all_layers (cls+mean of every layer)")
    parser.add_argument(
        "--window_offsets", dest="num_window_offsets", type=int, help="cuts into windows that a case is labelled by, averaged (default: 1)"
    )
    parser.add_argument("--head_norm", help="what normalises the features before the head: batch (default), layer or none")
    parser.add_argument("--layer_decay", type=float, help="factor of the learning rate from a block to the one below (default: 1, none)")
    parser.add_argument("--channels", help="fusion: one token of all channels (default). independent: each is encoded alone")
    parser.add_argument("--seed", type=int, default=0, help="of fresh weights, validating cases, order and crops (default: 0)")
    parser.add_argument("--selection", help="train: validate on training cases (default). test: choose on the test split")


CHOICES = ("strategy", "epochs", "min_updates", "refit", "batch_size", "ensemble_size", "pooling", "num_window_offsets")
CHOICES += ("head_norm", "layer_decay", "channels", "selection")


def run(args: argparse.Namespace) -> None:
    from nutime_jax.bundle import check_target
    from nutime_jax.config import TuningSettings
    from nutime_jax.finetuning.classifier import KIND
    from nutime_jax.finetuning.loop import fine_tune
    from nutime_jax.loading import load_encoder

    given = {name: getattr(args, name) for name in CHOICES if getattr(args, name) is not None}
    settings = TuningSettings(**given | ({"learning_rates": _numbers(args.learning_rates)} if args.learning_rates is not None else {}))
    check_target(args.out, kind=KIND)
    files = one_set(args.dataset, flag="--dataset")
    train, test = files.read("train"), _read_test(files)
    published = test if settings.selection == "test" else None
    encoder = load_encoder(args.encoder)
    with _Bar(settings.epochs, label=files.name) as bar:
        classifier = fine_tune(encoder, train, settings=settings, seed=args.seed, test=published, progress=bar)
    classifier.save(args.out)
    print(f"\n{_summary(files.name, classifier.training)}")
    if test is not None:
        how = "chosen on these very cases, as published: no estimate" if published else "scored once"
        print(f"test accuracy {100 * classifier.accuracy(test.series, test.labels):.1f} % of {len(test.series)} cases, {how}")
    print(f"written to {args.out}")


def one_set(source: str, *, flag: str):
    """The only set that a source names."""
    from nutime_jax.data.datasets import find_datasets

    sets = find_datasets(source)
    if len(sets) > 1:
        names = ", ".join(one.name for one in sets[:3]) + (", …" if len(sets) > 3 else "")
        raise InputError(f"{flag}={source} names {len(sets)} sets ({names}); name one")
    return sets[0]


def _read_test(files):
    """The test split; None where there is none, or none with labels."""
    try:
        test = files.read("test")
    except InputError:
        if files.test is None or files.test == files.train:  # an .npz may hold one split or both
            return None
        raise
    return None if test.labels is None else test


def _summary(name: str, training) -> str:
    cases = f"{name}: {training.train_cases} cases trained in {training.epochs} epochs and {training.seconds:.0f} s"
    kept = ", ".join(f"{rate:g} at epoch {epoch}" for rate, epoch in zip(training.learning_rates, training.best_epochs, strict=True))
    if not training.accuracies:
        return f"{cases}; no case could be spared for validation\nkept: rate {kept}"
    if training.selection == "test":
        return f"{cases}\nkept: rate {kept}"
    return f"{cases}\nkept: rate {kept}\nvalidation accuracy {100 * training.accuracy:.1f} % of {training.validation_cases} cases"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"learning_rates are {text!r}; write numbers, separated by commas") from error


class _Bar:
    """A bar with the loss and the best validation accuracy so far."""

    def __init__(self, epochs: int, *, label: str):
        from tqdm import tqdm

        self._bar = tqdm(total=epochs, desc=label, unit=" epochs", dynamic_ncols=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def __call__(self, epoch: int, report) -> None:
        best = max(0.0, float(report.best.accuracy.max(axis=1).mean()))
        self._bar.set_postfix_str(f"loss {float(report.loss.min()):.3f} best {100 * best:.1f} %", refresh=False)
        self._bar.update()
