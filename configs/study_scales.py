"""Which magnitudes an encoder of scalars tells apart, by number, spacing and range of its scales.

    nutime study scales --out=studies/scales
    nutime study scales --out=studies/scales --config.seeds=

The second command measures untrained embeddings alone. Every variant takes one pretraining a seed, 25,600 pairs of views each.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "study_scales"
    # What is pretrained: a shipped configuration, or a path to a .py file.
    config.base = "nutime_small"
    # Seeds of every run: weights, views, order of the data. Empty leaves out what needs training.
    config.seeds = (0, 1, 2)
    # Names of the variants that are looked at; empty for all of `variants`.
    config.only = ()

    # Name -> what is changed, section by section as in a configuration of `nutime pretrain`.
    variants = config.variants = ConfigDict(sort_keys=False)
    # As published: nine powers of ten.
    variants["nme-9"] = {"model": {"scales": tuple(10.0**k for k in range(-4, 5))}}
    # Fewer and more of them, always around 1.
    variants["nme-1"] = {"model": {"scales": (1.0,)}}
    variants["nme-3"] = {"model": {"scales": tuple(10.0**k for k in range(-1, 2))}}
    variants["nme-5"] = {"model": {"scales": tuple(10.0**k for k in range(-2, 3))}}
    variants["nme-13"] = {"model": {"scales": tuple(10.0**k for k in range(-6, 7))}}
    # The published range by three scales; nine scales by powers of two.
    variants["nme-3-wide"] = {"model": {"scales": (1e-4, 1.0, 1e4)}}
    variants["nme-9-base2"] = {"model": {"scales": tuple(2.0**k for k in range(-4, 5))}}
    # Nine scales without weights: every scale takes the same part in every number (the paper's ablation).
    variants["nme-9-unweighted"] = {"model": {"weighted_scales": False}}
    # Scales that are trained, from the published ones on; and an epsilon of the layer norm that is relative to each scale.
    variants["nme-9-trained"] = {"model": {"trained_scales": True}}
    variants["nme-9-relative"] = {"model": {"scale_eps": "relative"}}
    # Other encoders of scalars.
    variants.periodic = {"model": {"scalars": "periodic"}}
    variants.piecewise = {"model": {"scalars": "piecewise"}}
    variants.log = {"model": {"scalars": "log"}}
    variants.linear = {"model": {"scalars": "linear"}}

    # Lowest and highest power of ten of the scalars that are embedded, and magnitudes a decade at which distances are measured.
    config.decades = (-8, 8)
    config.per_decade = 4
    # Draws of the weights whose median distance counts.
    config.draws = 31
    # Share of their norm by which two embeddings differ at least where they count as told apart.
    config.blind = 0.01
    # Decoders: draws of the weights, scalars that they are fitted on and asked about.
    config.decoded_draws = 5
    config.train_scalars = 4000
    config.test_scalars = 1600
    # Noise on the embeddings that decoders see, as a share of their norm: without, they tell apart what differs by rounding alone.
    config.noise = 0.01
    # Powers of ten that both splits of a set are multiplied by before trained encoders are probed; 0 is among them.
    config.powers = (-8, -6, -4, -2, 0, 2, 4, 6, 8)

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
