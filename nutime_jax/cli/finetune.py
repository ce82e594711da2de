"""Fine-tune a pretrained encoder on a labelled dataset, score the test split once, and save the classifier.

    nutime finetune --encoder=runs/quickstart --dataset=GunPoint --out=models/gunpoint
    nutime finetune --encoder=runs/quickstart --dataset=my_folder/Pumps_TRAIN.ts --out=models/pumps --strategy=head --ensemble_size=5

Cases held out from the train split choose epoch and learning rate. A test split, if present, is scored once, at the end.
`nutime predict --model=FOLDER` applies the classifier to a file. With --selection=test the test split chooses epoch and
learning rate, as in the paper: the printed accuracy is then not an estimate.
"""

import argparse

from nutime_jax.cli.arguments import add_columns, add_dataset, add_encoder, columns_of, one_dataset, user_path
from nutime_jax.config import TuningSettings, override
from nutime_jax.errors import InputError
from nutime_jax.options import format_value, options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    add_dataset(parser)
    add_columns(parser)
    parser.add_argument("--out", required=True, type=user_path, help="folder of the classifier; an older classifier in it is replaced")
    parser.add_argument("--seed", type=int, default=0, help="seed of new weights, validation cases, order and crops (default: 0)")
    for name, option in options(TuningSettings).items():
        switch = {"action": "store_const", "const": "true"} if option.kind is bool else {"metavar": name.upper()}
        help_text = f"{option.meaning.rstrip('.')}; {option.accepted} (default: {format_value(option.default)})"
        parser.add_argument(f"--{name.removeprefix('num_')}", dest=name, help=help_text.replace("%", "%%"), **switch)


def run(args: argparse.Namespace) -> None:
    from nutime_jax.bundle import check_output_dir
    from nutime_jax.finetuning.classifier import KIND
    from nutime_jax.finetuning.loop import fine_tune
    from nutime_jax.loading import load_encoder

    given = {name: getattr(args, name) for name in options(TuningSettings)}
    settings = override(TuningSettings(), *(f"{name}={text}" for name, text in given.items() if text is not None))
    check_output_dir(args.out, kind=KIND)
    files = one_dataset(args.dataset, flag="--dataset", columns=columns_of(args))
    train, test = files.read_labelled("train"), _read_test(files)
    selects_on_test = settings.selection == "test"
    encoder = load_encoder(args.encoder)
    with _ProgressBar(settings.epochs, label=files.name) as bar:
        classifier = fine_tune(
            encoder,
            train,
            settings=settings,
            seed=args.seed,
            test=test if selects_on_test else None,
            progress=bar,
        )
    classifier.save(args.out)
    print(f"\n{_summary(files.name, classifier.training)}")
    if test is not None:
        protocol = "which also chose epoch and rate: not an estimate" if selects_on_test else "scored once"
        print(f"test accuracy {100 * classifier.accuracy(test.series, test.labels):.1f} % of {len(test.series)} cases, {protocol}")
    print(f"written to {args.out}")


def _read_test(files):
    """Return the test split; None if there is none, or it has no labels."""
    try:
        test = files.read("test")
    except InputError:
        if files.test is None or files.test == files.train:  # an .npz file may contain one split or both
            return None
        raise
    return None if test.labels is None else files.read_labelled("test")


def _summary(name: str, training) -> str:
    cases = f"{name}: {training.train_cases} cases trained in {training.epochs} epochs and {training.seconds:.0f} s"
    selected = ", ".join(f"{rate:g} at epoch {epoch}" for rate, epoch in zip(training.learning_rates, training.best_epochs, strict=True))
    if not training.accuracies:
        return f"{cases}; too few cases for validation\nselected: learning rate {selected}"
    if training.selection == "test":
        return f"{cases}\nselected: learning rate {selected}"
    accuracy = f"validation accuracy {100 * training.accuracy:.1f} % of {training.validation_cases} cases"
    return f"{cases}\nselected: learning rate {selected}\n{accuracy}"


class _ProgressBar:
    """A bar with the loss and the best validation accuracy so far."""

    def __init__(self, epochs: int, *, label: str):
        from nutime_jax.progress import ProgressBar

        self._bar = ProgressBar(total=epochs, desc=label, unit=" epochs")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()

    def __call__(self, epoch: int, report) -> None:
        best = max(0.0, float(report.best.accuracy.max(axis=1).mean()))
        self._bar.set_postfix_str(f"loss {float(report.loss.min()):.3f} best {100 * best:.1f} %", refresh=False)
        self._bar.update()
