"""Which length of a window serves which series.

    nutime study windows --out=studies/windows
    nutime study windows --out=studies/windows --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

Every variant takes one pretraining a seed, 25,600 pairs of views each; half the window is twice the tokens. The bundled sets are
eight, which is few for groups.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "study_windows"
    # What is pretrained: a shipped configuration, or a path to a .py file.
    config.base = "nutime_small"
    # Seeds of every run: weights, views, order of the data.
    config.seeds = (0, 1, 2)
    # Names of the variants that are looked at; empty for all of `variants`.
    config.only = ()

    # Name -> what is changed, section by section as in a configuration of `nutime pretrain`.
    variants = config.variants = ConfigDict(sort_keys=False)
    # Points a window, of the 256 of a series.
    variants["8"] = {"model": {"window": 8}}
    variants["16"] = {"model": {"window": 16}}
    variants["32"] = {"model": {"window": 32}}
    variants["64"] = {"model": {"window": 64}}
    # Tokens of all four, side by side.
    variants.mixed = {"model": {"window": 16, "windows": (8, 32, 64)}}

    # Groups that sets are put in, by length, by periodicity and by period, as equal in number as can be.
    config.groups = 3

    # What all variants have in common where it is not as in the base: fields of its configuration.
    pretrain = config.pretrain = ConfigDict()
    # Updates, and series a step.
    pretrain.steps = 200
    pretrain.batch_size = 128
    # Points that every view is resized to, and series when they are probed.
    pretrain.length = 256
    # Updates until the learning rate is at its highest.
    pretrain.optim = ConfigDict({"warmup_steps": 20})
    # The corpus: sources, sets that are left out, and where it is built; empty for a folder that all runs of the study share.
    # Real series alone.
    pretrain.data = ConfigDict({"sources": ("bundled",), "exclude": (), "dir": "", "synthetic": 0.0})
    # Steps between two lines of metrics, and between two checkpoints; of these the newest is kept.
    pretrain.run = ConfigDict({"log_every": 20, "checkpoint_every": 50, "keep": 1, "keep_every": 0, "best": ""})
    # Series, not their differences, are read at `length` points, and cut into windows once.
    pretrain.evaluation = ConfigDict({"lengths": (), "shifts": 1, "orders": (0,)})

    probe = config.probe = ConfigDict()
    # Names of bundled sets, files and folders: the sets that accuracy is measured on, default splits.
    probe.sources = ("bundled",)
    # The classifier of frozen features (ridge, logistic, knn, 1nn, forest), and what it does to them first.
    probe.protocol = "ridge"
    probe.scaler = "standard"
    # What is read: layer (last, or a number), tokens (cls, mean, cls+mean; all is those of every layer, whatever `layer` says),
    # and how the channels of a case become one vector (mean, concat).
    probe.layer = "last"
    probe.readout = "all"
    probe.channels = "concat"
    # Points that series are resized to, and how often they are cut into windows: own is as `pretrain.evaluation` says.
    probe.length = "own"
    probe.shifts = "own"
    # Orders of the differences that are read: own, 0 (the series), 1 (its differences), 0+1 (both).
    probe.orders = "own"
    return config
