"""NuTime small (556,736 parameters), a contrastive encoder for CPUs: the recipe of the shipped weights `nutime-small`.

    nutime data download --to=archives
    nutime pretrain --config=nutime_small --workdir=runs/nutime-small

Hardware and time: two shared CPU cores, a host device each, 340 pairs of views a second where nothing else ran (921,600 of them would
take 45 minutes; the run had interruptions), 1.1 GB. The shipped weights saw the train splits of 63 UCR and 10 UEA sets, of 22 more UCR
sets and the bundled ones. Score: 82.3 % on those 63 sets and 84.1 % on those 10 (test
accuracy of a ridge classifier on features of all layers, of series and their differences, eight shifts; one seed); the untrained twin
has 76.6 and 80.8. What was tried: docs/weights.md.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "nutime_small"
    # Of weights, views, dropout and the order of the data.
    config.seed = 0
    # Updates.
    config.steps = 3600
    # Series a step, over all devices.
    config.batch_size = 256
    # Points that every view is resized to.
    config.length = 512
    # Precision of float32 matrix products: "default" is TF32 on GPU and bfloat16 on TPU, "highest" is float32.
    config.matmul_precision = "highest"

    # Parts that a batch goes through in, to save memory; BatchNorm then sees one part at a time.
    config.accumulate = 1
    # What is computed again on the way back, to save memory: "none", "products" (all but the products of weights) or
    # "everything". The numbers stay.
    config.remat = "none"
    # Views that are encoded at a time, and once more on the way back: less memory, the same numbers but for which elements
    # are dropped. 0 is 32 on a CPU, whose caches hold what they leave, and all at once elsewhere.
    config.chunk = 0

    model = config.model = ConfigDict()
    # Points a window (and a token).
    model.window = 16
    # Width of a token.
    model.width = 128
    # Transformer blocks.
    model.depth = 4
    # Attention heads, and the width of each.
    model.heads = 8
    model.head_dim = 16
    # Hidden width of the MLPs.
    model.mlp_dim = 256
    # Share dropped of attention weights, projections and MLP, in training.
    model.dropout = 0.0
    # Magnitudes of the numerically multi-scaled embedding, and its width.
    model.scales = tuple(10.0**k for k in range(-4, 5))
    model.scale_dim = 32

    objective = config.objective = ConfigDict()
    # What is made small, with the fields of this section that it reads:
    #   byol     each view's target is predicted from the other view; published (hidden, dim, momentum, readout)
    #   simsiam  the same without a target network (hidden, dim, readout)
    #   moco     that target is told from those of all series of the batch, MoCo v3 (hidden, dim, momentum, temperature, readout)
    #   simclr   the other view is told from all views of the batch, without predictor and target (hidden, dim, temperature,
    #            readout)
    #   masked   hidden windows are predicted from the others: shape, mean and std (mask, mask_kind); nothing is asked of CLS
    # Another is --config.objective.kind=moco --config.objective.temperature=0.2, and so on.
    objective.kind = "simclr"
    # Hidden and output width of projector and predictor.
    objective.hidden = 512
    objective.dim = 128
    # Momentum of the target at the first step; it rises to 1 along half a cosine.
    objective.momentum = 0.99
    # Cosines are divided by it (published: 0.2 for moco).
    objective.temperature = 0.1
    # What the projector sees of the tokens: "cls" (published), "mean" (of the window tokens) or "cls+mean".
    objective.readout = "cls"
    # Share of the windows that are hidden, and which: "random" ones or a "block" of neighbours.
    objective.mask = 0.5
    objective.mask_kind = "random"

    augment = config.augment = ConfigDict()
    # Smallest and largest share of a series that a crop keeps.
    augment.crop = (0.5, 1.0)
    # What is done to each crop, one after the other, name=strength: see `nutime_jax/distortions.py`.
    augment.distort = ("jitter=0.3", "scale=0.22", "level=0.5", "mask=0.5")

    optim = config.optim = ConfigDict()
    # AdamW: peak learning rate, its start and its end.
    optim.rate = 2e-3
    optim.warmup_rate = 2e-6
    optim.final_rate = 2e-5
    optim.warmup_steps = 180
    optim.beta1 = 0.9
    optim.beta2 = 0.999
    optim.epsilon = 1e-8
    optim.weight_decay = 0.05
    # What decays: "all" (as released) or "matrices" (no biases, norms or CLS token).
    optim.decay = "all"

    data = config.data = ConfigDict()
    # Names of bundled sets, files and folders, each a part of the corpus; only train splits are read.
    data.sources = ("bundled", "ucr=archives/ucr", "uea=archives/uea")
    # Names of sets that are left out.
    data.exclude = ()
    # Where the built corpus is kept; empty for <workdir>/data.
    data.dir = ""
    # Longer series are cut into equal pieces, here and when they are embedded.
    data.max_length = 4096
    # Shares of the sources, one each; empty to weigh a source by its classes.
    data.weights = ()
    # A class of n series is drawn in proportion to n**alpha: 0 makes all classes alike (as released), 1 all series.
    data.alpha = 0.0
    # Share of every batch that is synthetic, made inside the step; 1 needs no sources.
    data.synthetic = 0.25
    # Whether the corpus is kept in the memory of every device, so that the host has no part in a step.
    data.resident = False
    # Threads that read ahead.
    data.threads = 2

    parallel = config.parallel = ConfigDict()
    # Devices that parameters may be divided over; batches are divided over all.
    parallel.fsdp = 1
    # Which are, and along which of their axes: pattern=axes; all else is on every device.
    parallel.rules = ("kernel$=fsdp",)

    run = config.run = ConfigDict()
    # Steps between two lines of metrics, two checkpoints, two probes (0 for none).
    run.log_every = 20
    run.checkpoint_every = 200
    run.probe_every = 400
    # Sets whose *train* splits are probed by cross-validation.
    run.probe_sources = ("ArrowHead", "GunPoint", "OSULeaf")
    # Checkpoints kept: so many of the newest, those of steps that are multiples of keep_every (0 for none), and the one
    # at which the metric `best` was highest ("-loss": lowest; empty for none).
    run.keep_every = 600
    run.best = ""
    run.keep = 2

    # Seconds without a step after which the run counts as hung, and is stopped (0 for never); longer than probes take.
    # The first step, which is compiled, has ten times as long.
    run.hang_seconds = 600
    # Spread of the projections below which they have collapsed, and for how many lines of metrics before the run is
    # stopped; nothing is saved meanwhile.
    run.collapse = 0.01
    run.collapse_patience = 5

    evaluation = config.evaluation = ConfigDict()
    # Sets of the table at the end; empty for none.
    evaluation.sources = ("bundled",)
    # Layer that is read (none is the last, normalised), and how tokens and channels become features.
    evaluation.layer = config_dict.placeholder(int)
    evaluation.readout = "all"
    evaluation.channels = "concat"
    # Points that a series is resized to, once for each, its features side by side; empty is `length`.
    evaluation.lengths = ()
    # How often a series is cut into windows, a share of a window further on each time; features are averaged.
    evaluation.shifts = 8
    # Orders of the differences of neighbouring points that are read, their features side by side: 0 is the series itself.
    evaluation.orders = (0, 1)
    return config
