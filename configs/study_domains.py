"""What an encoder is worth on a domain that its corpus lacked.

    nutime study domains --out=studies/domains
    nutime study domains --out=studies/domains --config.pretrain.data.sources=bundled,archives/ucr --config.probe.sources=archives/ucr

One pretraining with everything and one without each domain that has sets in the corpus, a seed, 25,600 pairs of views each. The
bundled sets have one or two of a domain. The UCR archive counts gestures recorded by an accelerometer among the sensors.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "study_domains"
    # What is pretrained: a shipped configuration, or a path to a .py file.
    config.base = "nutime_small"
    # Seeds of every run: weights, views, order of the data.
    config.seeds = (0, 1, 2)
    # Names of the domains that are left out, one at a time; empty for all of `domains`.
    config.only = ()

    # Name of a domain -> types of sets that make it, as the archives call them (nutime_jax/studies/set_types.csv); of the UEA archive
    # HAR is human activity, MOTION other motion, AS spectra of audio.
    domains = config.domains = ConfigDict(sort_keys=False)
    domains.image = ("Image",)
    domains.sensor = ("Sensor",)
    domains.motion = ("Motion", "Trajectory", "HAR", "MOTION")
    domains.device = ("Device",)
    domains.spectro = ("Spectro",)
    domains.ecg = ("ECG",)
    domains.simulated = ("Simulated",)

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
