"""Every frozen protocol of a pretrained encoder and of its untrained twin on the bundled sets, beside classical methods.

nutime sweep --config=sweep --out=results/quickstart
nutime report results/quickstart/results.csv --out=results/quickstart/report.html
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "sweep"
    # Encoders, name=path of a workdir or checkpoint; name=untrained:path is its untrained twin. Encoders of one name are
    # repetitions (seeds).
    config.encoders = ("pretrained=runs/quickstart", "untrained=untrained:runs/quickstart")
    # Names of bundled sets, files and folders.
    config.sources = ("bundled",)
    # Files of monitored series with labelled points, and the windows that are embedded of them, in points.
    config.monitored = ()
    config.window = 32
    config.stride = 8
    # Classical methods on the raw series: raw_1nn, raw_1nn_dtw, raw_forest, minirocket, multirocket_hydra.
    config.baselines = ("raw_1nn", "raw_forest", "minirocket")
    # Of ridge, logistic, knn, 1nn, forest, fewshot, clustering, anomaly, finetune and fewshot_finetune.
    config.protocols = ("ridge", "knn", "logistic")
    # Layers that are read: numbers from 0 (before the first block), last (after the last, normalised), or all.
    config.layers = ("last",)
    # Tokens that are read: cls, mean, cls+mean; all is cls+mean of every layer side by side, whatever `layers` says.
    config.readouts = ("cls+mean",)
    # Points that series are resized to: own (the encoder's), or numbers; features of several, 512+1024, stand side by side.
    config.lengths = ("own",)
    # How often series are cut into windows, a share of a window further on each time: own (the encoder's), or numbers.
    config.shifts = ("own",)
    # Orders of the differences that are read: own (the encoder's), 0 (the series), 1 (its differences), 0+1 (both, side by side).
    config.orders = ("own",)
    # How the channels of a case become one vector: mean, concat.
    config.channels = ("concat",)
    # What probes do to features first: none, standard, minmax.
    config.scalers = ("standard",)
    # Cases a class of few-shot tasks, and how many tasks: with frozen features, and with fine-tuning.
    config.shots = (5,)
    config.tasks = 100
    config.tuned_tasks = 10
    # Of what draws at random: forests, few-shot tasks, k-means, fine-tuning, kernels; the rest is computed once.
    config.seeds = (0,)

    # Choices of finetune; what is left out has the default of `nutime finetune`.
    finetune = config.finetune = ConfigDict()
    # "full" trains everything, "head" the head alone.
    finetune.strategy = "full"
    # What the head sees: cls, mean, cls+mean, or all (cls+mean of every layer).
    finetune.readout = "cls"
    # Passes over the training cases, at most.
    finetune.epochs = 100
    # Updates that are made at least, where so many passes make fewer.
    finetune.least_updates = 0
    # Peak learning rates; the one that validates best is kept.
    finetune.rates = (3e-4, 1e-3, 3e-3)
    # Networks whose probabilities are averaged.
    finetune.members = 1
    # How often test cases are cut into windows, a share of a window further on each time.
    finetune.shifts = 1
    # Whether they are trained anew on all training cases once rate and epoch are chosen.
    finetune.refit = False
    return config
