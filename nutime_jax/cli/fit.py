"""Fit a classifier on a labelled dataset, score the test split once, and save the classifier.

    nutime fit --encoder=nutime-small --dataset=labelled.csv --out=models/labelled
    nutime fit --encoder=runs/quickstart --dataset=GunPoint --out=models/gunpoint --strategy=full --ensemble_size=5

--strategy=probe (default) fits a classifier on frozen features; head trains a head on the frozen encoder, full trains
encoder and head, average does full and a probe, and averages their probabilities. Cases held out from the train split choose
penalty, epoch and learning rate; few cases all train, for all epochs. A test split, if present, is scored once, at the end.
`nutime predict --model=FOLDER` applies the classifier to a file. With --selection=test the test split chooses epoch and learning
rate, as in the paper: the printed accuracy is then not an estimate.
"""

import argparse

from nutime_jax.cli.arguments import add_columns, add_dataset, add_encoder, columns_of, one_dataset, open_encoder, user_path
from nutime_jax.config import TuningSettings, override
from nutime_jax.errors import InputError
from nutime_jax.options import format_value, nearest, options

STRATEGIES = ("probe", "head", "full", "average")
OF_FEATURES = {"pooling": "pooling", "num_window_offsets": "window_offsets"}
"""Fields of fine-tuning whose flags choose features of any strategy."""
TUNED = {name: option for name, option in options(TuningSettings).items() if name not in ("strategy", "channels", *OF_FEATURES)}
"""Fields that only fine-tuning has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_encoder(parser)
    add_dataset(parser)
    add_columns(parser)
    parser.add_argument("--out", required=True, type=user_path, help="folder of the classifier; an older classifier in it is replaced")
    parser.add_argument("--strategy", default="probe", help="probe, head, full or average (default: probe)")
    parser.add_argument("--probe", help="kernel, ridge or logistic (default: kernel)")
    parser.add_argument("--channels", help="of a probe concat (default) or mean; of a network fusion (default), independent or concat")
    parser.add_argument("--seed", type=int, help="seed of new weights, validation cases, order and crops (default: 0)")
    for name, option in TUNED.items():
        switch = {"action": "store_const", "const": "true"} if option.kind is bool else {"metavar": name.upper()}
        help_text = f"head, full, average: {option.meaning.rstrip('.')}; {option.accepted} (default: {format_value(option.default)})"
        parser.add_argument(f"--{name}", help=help_text.replace("%", "%%"), **switch)


def run(args: argparse.Namespace) -> None:
    from nutime_jax.bundle import check_output_dir
    from nutime_jax.finetuning.base import KIND

    if args.strategy not in STRATEGIES:
        raise InputError(f"--strategy is {args.strategy!r}{nearest(args.strategy, STRATEGIES)}; choose one of {', '.join(STRATEGIES)}")
    settings = _settings(args)
    check_output_dir(args.out, kind=KIND)
    files = one_dataset(args.dataset, flag="--dataset", columns=columns_of(args))
    train, test = files.read_labelled("train"), _read_test(files)
    encoder = open_encoder(args)
    if settings is None:
        classifier = _fit_probe(args, encoder, train, files.name)
    else:
        classifier = _fine_tune(args, encoder, train, test, settings, files.name)
    classifier.save(args.out)
    if test is not None:
        chosen = settings is not None and settings.selection == "test"
        protocol = "which also chose epoch and rate: not an estimate" if chosen else "scored once"
        print(f"test accuracy {100 * classifier.accuracy(test.series, test.labels):.1f} % of {len(test.series)} cases, {protocol}")
    print(f"written to {args.out}; next: nutime predict --model={args.out} --data=FILE --out=labels.csv")


def _settings(args: argparse.Namespace) -> TuningSettings | None:
    """Return the settings of fine-tuning; None for a probe. Raise InputError for flags of the other."""
    given = {name: getattr(args, name) for name in (*TUNED, "seed") if getattr(args, name) is not None}
    if args.strategy == "probe":
        for name in given:
            raise InputError(f"--{name} is for --strategy=head, full or average, and the strategy is probe; add one, or remove --{name}")
        return None
    for name in ("probe", "layer"):
        if getattr(args, name) is not None and args.strategy != "average":
            raise InputError(f"--{name} is for --strategy=probe or average, and the strategy is {args.strategy}; remove it")
    given.pop("seed", None)
    given |= {name: getattr(args, flag) for name, flag in OF_FEATURES.items() if getattr(args, flag) is not None}
    given |= {"strategy": "head" if args.strategy == "head" else "full", **({} if args.channels is None else {"channels": args.channels})}
    return override(TuningSettings(), *(f"{name}={text}" for name, text in given.items()))


def _fit_probe(args: argparse.Namespace, encoder, train, name: str):
    from nutime_jax.evaluation.protocols.probes import fit_probe

    classifier = fit_probe(encoder, train, channels=args.channels or "concat", **_probe_options(args))
    _print_probe(args, name, classifier, train)
    return classifier


def _probe_options(args: argparse.Namespace) -> dict:
    return {"probe": args.probe or "kernel", "layer": args.layer, "pooling": args.pooling}


def _print_probe(args: argparse.Namespace, name: str, probe, train) -> None:
    print(f"{name}: {args.probe or 'kernel'} probe on {len(probe.mean):,} features of {len(train.series)} cases")


def _fine_tune(args: argparse.Namespace, encoder, train, test, settings: TuningSettings, name: str):
    from nutime_jax.evaluation.protocols.finetune import fit_average
    from nutime_jax.finetuning.loop import fine_tune

    average = args.strategy == "average"
    fit, options = (fit_average, _probe_options(args)) if average else (fine_tune, {})
    validation = test if settings.selection == "test" else None
    with _ProgressBar(settings.epochs, label=name) as bar:
        classifier = fit(encoder, train, settings=settings, seed=args.seed or 0, test=validation, progress=bar, **options)
    print(f"\n{_summary(name, classifier.training)}")
    if average:
        _print_probe(args, name, classifier.probe, train)
    return classifier


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
        return f"{cases}, without validation: fewer than --min_validation_cases to hold out\nlearning rate {selected}"
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
        best = float(report.best.accuracy.max(axis=1).mean())
        accuracy = f" best {100 * best:.1f} %" if best > 0 else ""  # nothing without validation
        self._bar.set_postfix_str(f"loss {float(report.loss.min()):.3f}{accuracy}", refresh=False)
        self._bar.update()
