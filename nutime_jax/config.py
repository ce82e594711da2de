"""The schema of all configurations: every field with its type, default, accepted values and meaning.

Defaults are the published values (`configs/nutime_paper.py`). Files of configurations set only what differs from them.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nutime_jax.errors import InputError
from nutime_jax.options import Section, describe, nearest, option, options, values
from nutime_jax.overrides import from_dict, override, read_file, to_dict, update

__all__ = ["PretrainConfig", "SweepConfig", "describe", "from_dict", "load_config", "options", "override", "to_dict", "update", "values"]

Config = TypeVar("Config", bound=Section)
POOLED = ("cls", "mean", "cls+mean")
POOLINGS = (*POOLED, "all_layers", "all_layers+stem")
PRECISIONS = ("default", "high", "highest")
NORMALISATIONS = ("none", "dataset")
MASKS = ("random", "block")
LONGEST_SERIES = 2**24 - 1
"""Maximum time points of a series: float32 represents all indices up to it exactly."""


@dataclass(frozen=True)
class ModelConfig(Section, prefix="model", encoder=True):
    """Network of an encoder. The defaults are the published model: 2,395,328 parameters."""

    window_size: int = option(16, "Time points per window. Each window is one token.", low=1)
    width: int = option(128, "Width of a token.", low=1)
    depth: int = option(6, "Number of Transformer blocks; 0 keeps only the embedding.", low=0)
    num_heads: int = option(8, "Number of attention heads.", low=1)
    head_dim: int = option(64, "Width of an attention head.", low=1)
    mlp_dim: int = option(512, "Hidden width of the MLPs.", low=1)
    dtype: str = option(
        "float32",
        "Dtype of residual stream and matmuls in pretraining. bfloat16 halves the memory traffic of a GPU, and takes 9 % less time on "
        "TPU v5e (estimate). Weights and norms stay float32, and so does embedding, whose matmuls have evaluation.precision.",
        choices=("float32", "bfloat16"),
    )
    dropout: float = option(0.1, "Dropout rate of attention weights, projections and MLPs in training.", low=0, below=1)
    stochastic_depth: float = option(
        0.0, "Probability that the last block skips its residual branches in training, rising linearly from 0 over blocks.", low=0, below=1
    )
    max_tokens: int = option(1024, "Maximum number of tokens, CLS included. Limits the length of a series.", low=2)
    scales: tuple[float, ...] = option(tuple(10.0**k for k in range(-4, 5)), "Scales of the NME, which embeds mean and std.", above=0)
    scale_dim: int = option(32, "Width of the embedding of a scalar (mean or std of a window).", low=1)
    scale_weighting: bool = option(True, "Whether the NME weights its scales by their distance from the scalar. Encodes magnitude.")
    scalar_encoder: str = option("nme", "Scalar encoder: nme, periodic, piecewise, log, linear or a registered name.")
    learnable_scales: bool = option(False, "Whether the scales of the NME are trained.")
    scale_eps: str = option("absolute", "LayerNorm epsilon of the NME: absolute, or relative to scales.", choices=("absolute", "relative"))
    locations: tuple[float, ...] = option((), "Offsets of scalars in the NME; empty is 0.")
    frequency_init: str = option("normal", "Initialisation of the periodic scalar encoder.", choices=("normal", "log-linear"))
    frequency_scale: float = option(0.027, "Scale of the initial frequencies of the periodic scalar encoder.", above=0)
    learnable_frequencies: bool = option(False, "Whether these frequencies are trained.")
    bins: int = option(32, "Number of bins of the piecewise scalar encoder.", low=1, high=4096)
    normalisation: str = option("window", "Range that normalises shapes; instance is the series.", choices=("window", "instance"))
    window_stats: str = option("window", "Range of embedded mean and std; instance is the series.", choices=("window", "instance", "none"))
    channel_fusion: str = option("linear", "Fusion of the channels of a window into one token.", choices=("linear", "sum"))
    pos_embedding: str = option("sinusoidal", "Position embedding.", choices=("sinusoidal", "learned", "rotary", "none"))
    stride: int = option(0, "Time points between the starts of two windows; 0 is window_size, no overlap.", low=0)
    dense_stride: int = option(0, "Time points between dense windows, whose shapes a token averages; divides its stride; 0 is none.", low=0)
    dense_differences: bool = option(False, "Whether dense windows of the first difference are a second shape in each token.")
    dense_width: int = option(0, "Number of kernels of each dense shape; 0 is width.", low=0)
    stem_dilations: tuple[int, ...] = option(
        (1, 2, 4, 8, 16, 32), "Dilations of the pooled stem features, in time points.", low=1, unique=True, nonempty=True
    )
    extra_window_sizes: tuple[int, ...] = option((), "Further window sizes in time points; their tokens come last.", low=1)
    backbone: str = option("transformer", "Network over tokens. resnet has no CLS token.", choices=("transformer", "resnet"))
    mask_ratio: float = option(0.0, "Fraction of windows masked in training and fine-tuning; 0 is none.", low=0, below=1)
    mask_type: str = option("random", "Masked windows: at random, or a block of neighbours.", choices=MASKS)
    mask_strategy: str = option("learned", "Masked windows are replaced by a learned vector, or dropped.", choices=("learned", "drop"))

    @property
    def window_stride(self) -> int:
        """Time points from the start of a window to the start of the next."""
        return self.stride or self.window_size

    @property
    def window_specs(self) -> tuple[tuple[int, int], ...]:
        """(window, stride) of each window size, in time points; `window_size` first."""
        return tuple((size, size * self.window_stride // self.window_size) for size in (self.window_size, *self.extra_window_sizes))

    @property
    def min_length(self) -> int:
        """A length that windows of every size fill."""
        return math.lcm(self.window_size, *self.extra_window_sizes)

    def _check(self) -> None:
        self._check_windows()
        transformer = self.backbone == "transformer"
        if self.extra_window_sizes and not transformer:
            needs = f"a {self.backbone} needs tokens of one order"
            raise InputError(f"model.extra_window_sizes is {self.extra_window_sizes}, and {needs}; leave model.extra_window_sizes empty")
        if self.mask_ratio and self.mask_strategy == "drop" and not (transformer and self.pos_embedding != "rotary"):
            raise InputError(
                "model.mask_strategy is 'drop', which needs a transformer with a table of positions; choose 'learned', "
                "or model.pos_embedding sinusoidal or learned"
            )
        if self.pos_embedding == "rotary" and not (transformer and self.head_dim % 2 == 0):
            raise InputError("model.pos_embedding is 'rotary', which rotates pairs; choose transformer and an even head_dim")

    def _check_windows(self) -> None:
        window, step = self.window_size, self.window_stride
        if self.stride > window:
            gaps = f"windows of {window} time points would leave gaps"
            raise InputError(f"model.stride is {self.stride}, and {gaps}; choose at most {window}")
        if len({window, *self.extra_window_sizes}) <= len(self.extra_window_sizes):
            raise InputError(f"model.extra_window_sizes is {self.extra_window_sizes} with model.window_size {window}; name each size once")
        if self.dense_stride and step % self.dense_stride:
            raise InputError(f"model.dense_stride {self.dense_stride} does not divide the token stride {step}; choose a divisor, or 0")
        if self.dense_differences and not self.dense_stride:
            raise InputError("model.dense_differences needs dense windows; set model.dense_stride")
        if self.dense_width and not self.dense_stride:
            raise InputError(f"model.dense_width is {self.dense_width} without dense windows; set model.dense_stride")
        dense_excludes = {"normalisation": "window", "channel_fusion": "linear", "extra_window_sizes": ()}
        for name, needed in dense_excludes.items():
            if self.dense_stride and getattr(self, name) != needed:
                raise InputError(f"model.{name} is {getattr(self, name)!r}; dense windows need {needed!r}, or set model.dense_stride=0")
        for size in self.extra_window_sizes:
            if window % step or size * step % window:
                overlap = f"windows of {size} cannot overlap by the same ratio as those of {window} every {step}"
                accepted = "a stride that divides the window, and sizes of which the same part is an integer"
                raise InputError(f"model.extra_window_sizes is {self.extra_window_sizes}, and {overlap}; choose {accepted}")


@dataclass(frozen=True)
class ObjectiveConfig(Section, prefix="objective"):
    """Objective that pretraining minimises."""

    kind: str = option("byol", "Objective: byol, simsiam, moco, simclr, masked or a registered name.")
    hidden_dim: int = option(4096, "Hidden width of projector and predictor. Not used by masked.", low=1)
    output_dim: int = option(256, "Output width of projector and predictor. Not used by masked.", low=1)
    momentum: float = option(0.999, "Momentum of the target network at step 0, rising to 1. Used by byol and moco.", low=0, high=1)
    temperature: float = option(0.1, "Divisor of the cosines. Used by simclr and moco (MoCo v3 paper: 0.2).", above=0)
    pooling: str = option("cls", "Pooling of the tokens before the projector. Not used by masked.", choices=POOLED)
    mask_ratio: float = option(0.5, "Fraction of windows that are masked and predicted. Used by masked.", low=0, below=1)
    mask_type: str = option("random", "Masked windows: at random, or a block of neighbours. Used by masked.", choices=MASKS)


@dataclass(frozen=True)
class AugmentConfig(Section, prefix="augment"):
    """Augmentations of the two views of a series."""

    crop_ratio: tuple[float, float] = option((0.8, 1.0), "Minimum and maximum crop, as a fraction of the series.", low=0, high=1)
    transforms: tuple[str, ...] = option((), "Augmentations of a crop in this order, name=strength; see core/augmentations.py.")

    def _check(self) -> None:
        if self.crop_ratio[0] > self.crop_ratio[1]:
            raise InputError(f"augment.crop_ratio is {self.crop_ratio}; choose a minimum that is not above the maximum")


@dataclass(frozen=True)
class OptimConfig(Section, prefix="optim"):
    """AdamW with linear warm-up and cosine decay."""

    lr: float = option(2e-3, "Peak learning rate.", low=0)
    warmup_lr: float = option(2e-6, "Learning rate at step 0.", low=0)
    min_lr: float = option(2e-5, "Learning rate at the last step.", low=0)
    warmup_steps: int = option(18_450, "Steps of linear warm-up, fewer than steps (paper: 10 epochs).", low=0)
    beta1: float = option(0.9, "Decay rate of the first moment.", low=0, below=1)
    beta2: float = option(0.999, "Decay rate of the second moment.", low=0, below=1)
    epsilon: float = option(1e-8, "Constant in the denominator of the update.", low=0)
    weight_decay: float = option(0.05, "Decoupled weight decay.", low=0)
    weight_decay_mask: str = option("all", "Decayed parameters; matrices has no biases, norms or CLS.", choices=("all", "matrices"))


@dataclass(frozen=True)
class DataConfig(Section, prefix="data"):
    """Corpus of pretraining. A run is identified by the digest of its corpus, not by the paths."""

    sources: tuple[str, ...] = option(
        ("ucr=archives/ucr", "uea=archives/uea", "transfer=archives/transfer"),
        "Bundled datasets, files and folders, [name=]path. Only train splits are read.",
        resume=True,
    )
    exclude: tuple[str, ...] = option(("EigenWorms", "InsectWingbeat"), "Names of excluded datasets.", resume=True)
    dir: str = option("", "Folder of the built corpus; empty is WORKDIR/data.", resume=True)
    max_length: int = option(4096, "Time points at which series are split into equal segments.", low=1, high=LONGEST_SERIES, encoder=True)
    source_weights: tuple[float, ...] = option((), "Sampling weight per source; empty weights sources by their number of classes.", low=0)
    class_balance_alpha: float = option(0.0, "Exponent of class sizes in sampling; 0: uniform classes, 1: uniform series.", low=0, high=1)
    synthetic_fraction: float = option(0.0, "Fraction of synthetic series per batch; 1 needs no sources.", low=0, high=1)
    on_device: bool | None = option(
        None, "Whether every device holds the full corpus; none: if it takes at most a quarter of its memory (1 GB on CPU).", resume=True
    )
    reader_threads: int = option(4, "Number of threads that read ahead.", low=1, resume=True)


@dataclass(frozen=True)
class ParallelConfig(Section, prefix="parallel", resume=True):
    """Sharding over devices."""

    fsdp: int = option(1, "Number of devices that parameters are sharded over. Saves memory. Batches are sharded over all devices.", low=1)
    rules: tuple[str, ...] = option(("kernel$=fsdp",), "Sharded parameters, pattern=axes. Other parameters are replicated.")


@dataclass(frozen=True)
class RunConfig(Section, prefix="run", resume=True):
    """Metrics, checkpoints, probes, and checks that stop a run."""

    log_every: int = option(100, "Steps between two lines of metrics.", low=1)
    checkpoint_every: int = option(1000, "Steps between two checkpoints.", low=1)
    probe_every: int = option(10_000, "Steps between two probes; 0 is never.", low=0)
    probe: str = option(
        "ridge",
        "Probe of features of training cases: ridge, cross-validated; or knn, leave-one-out vote of 20 cosine neighbours.",
        choices=("ridge", "knn"),
    )
    probe_temperature: float = option(0.07, "Temperature of knn: a neighbour votes with exp(similarity / temperature).", above=0)
    probe_sources: tuple[str, ...] = option(("ArrowHead", "GunPoint", "OSULeaf"), "Datasets of the probe; train splits only.")
    max_to_keep: int = option(3, "Number of newest checkpoints that are retained.", low=1)
    keep_period: int = option(0, "Checkpoints at multiples of this many steps are retained as well; 0 is none.", low=0)
    best_metric: str = option("probe_accuracy", "Metric whose best checkpoint is retained; -loss minimises, empty is none.")
    watchdog_timeout_s: int = option(600, "Seconds without a finished step before a run exits; first step: 10 times; 0 is never.", low=0)
    collapse_threshold: float = option(0.01, "Projection std (1 is uniform on the sphere) below which projections are collapsed.", low=0)
    collapse_patience: int = option(5, "Lines of metrics with collapsed projections before a run stops.", low=1)


@dataclass(frozen=True)
class EvaluationConfig(Section, prefix="evaluation", resume=True, encoder=True):
    """Features of the encoder, and the datasets of the final table."""

    sources: tuple[str, ...] = option(("bundled",), "Datasets of the final table; empty makes no table.", encoder=False)
    layer: int | None = option(None, "Layer of the features; none is the last layer, normalised.", low=0, encoder=False)
    pooling: str = option(
        "cls+mean",
        "Pooling of the tokens, see models/pooling.py.",
        choices=POOLINGS,
    )
    channels: str = option("concat", "Combination of the features of channels.", choices=("mean", "concat"), encoder=False)
    input_lengths: tuple[int, ...] = option(
        (), "Input lengths, concatenated; 0 is the bucket of the series, empty is length.", low=0, unique=True
    )
    length_buckets: tuple[int, ...] = option(
        (128, 256, 512, 1024), "Buckets: a series has the smallest that is not shorter, or the largest.", low=1, nonempty=True
    )
    num_window_offsets: int = option(1, "Number of window offsets that features are averaged over. Cost grows linearly.", low=1)
    diff_orders: tuple[int, ...] = option((0,), "Difference orders, concatenated; 0 is the series.", low=0, high=1, unique=True)
    precision: str = option(
        "highest",
        "Precision of float32 matmuls of features, as matmul_precision. CPUs compute float32 at any.",
        choices=PRECISIONS,
    )
    normalise: str = option(
        "none",
        "Normalisation of series. dataset: each channel by its mean and std over all training series, which keeps relative scales.",
        choices=NORMALISATIONS,
    )
    channel_means: tuple[float, ...] = option((), "Means of the channels, which `Encoder.fit_normalisation` sets; empty is not fitted.")
    channel_stds: tuple[float, ...] = option((), "Standard deviations of the channels, set with the means.", above=0)
    channel_differences: bool = option(False, "Whether concatenated channels include the differences of neighbouring channels.")
    fast: tuple[str, ...] = option(
        ("num_window_offsets=1", "diff_orders=0"), "Setting `fast` of the encoder: fields of this section, name=value, + between values."
    )
    accurate: tuple[str, ...] = option(
        ("num_window_offsets=2", "diff_orders=0+1"),
        "Setting `accurate` of the encoder, in the same form.",
    )


@dataclass(frozen=True)
class PretrainConfig(Section):
    """Configuration of `nutime pretrain`."""

    name: str = option("unnamed", "Name of the run.", encoder=True)
    seed: int = option(1, "Seed of weights, views, dropout and data order.", low=0, high=2**32 - 1, encoder=True)
    steps: int = option(369_000, "Number of updates (paper: 200 epochs of 1,845 batches).", low=1)
    batch_size: int = option(1024, "Series per step, over all devices.", low=2)
    length: int = option(512, "Time points to which every view is resized.", low=1, encoder=True)
    view_lengths: tuple[int, ...] = option((), "Time points of the views of step 0, 1, ..., in turn; empty is length.", low=1)
    matmul_precision: str = option(
        "default",
        "Precision of float32 matmuls. default: TF32 on GPU, bfloat16 on TPU; highest: float32.",
        choices=PRECISIONS,
        encoder=True,
    )
    grad_accum_steps: int = option(1, "Microbatches per step. Saves memory; results differ, as BatchNorm is per microbatch.", low=1)
    remat: str = option(
        "none",
        "Rematerialisation of blocks: save_dots keeps outputs of matmuls, full only block inputs. Saves memory.",
        choices=("none", "save_dots", "full"),
        resume=True,
    )
    attention: str = option(
        "matmul",
        "Attention in pretraining: matmuls, or fused, a kernel for TPUs that keeps scores on the chip; at most head_dim tokens.",
        choices=("matmul", "fused"),
        resume=True,
    )
    encoder_microbatch_size: int = option(
        0,
        "Minimum number of views encoded at a time, rematerialised. Saves memory. 0: 32 on CPU, full batch on GPU; on TPU, 256 per chip "
        "without rematerialisation.",
        low=0,
        resume=True,
    )
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    data: DataConfig = DataConfig()
    parallel: ParallelConfig = ParallelConfig()
    run: RunConfig = RunConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def training_lengths(self) -> tuple[int, ...]:
        """Time points of the views of step 0, 1, ..., in turn."""
        return self.view_lengths or (self.length,)

    def _check(self) -> None:
        if self.model.window_stride == self.model.window_size and self.length % self.model.window_size:
            window = self.model.window_size
            raise InputError(f"length {self.length} is not divisible by model.window_size {window}; choose a multiple of it")
        if (warmup := self.optim.warmup_steps) >= self.steps:
            accepted = f"choose 0 to {self.steps - 1} for a run of {self.steps} steps"
            raise InputError(f"optim.warmup_steps is {warmup}; {accepted}")
        if self.encoder_microbatch_size and self.remat != "none":
            both = f"encoder_microbatch_size is {self.encoder_microbatch_size} and remat is {self.remat!r}"
            raise InputError(f"{both}, which both recompute; set one of them")


@dataclass(frozen=True)
class TuningSettings(Section):
    """Choices of fine-tuning; docs/configuration.md explains each."""

    strategy: str = option("full", "Trained parameters: all, or head, its norm and the channel fusion.", choices=("full", "head"))
    # Validation loss of a frozen untrained encoder on GunPoint and ArrowHead: 0.65 and 0.98 with "none",
    # 0.35 and 0.81 with "batch".
    head_norm: str = option("batch", "Normalisation before the linear head.", choices=("batch", "layer", "none"))
    pooling: str = option(
        "encoder", "Pooling of the tokens before the head: encoder (its default), or others; paper: cls.", choices=("encoder", *POOLINGS)
    )
    channels: str = option(
        "fusion",
        "Channels are fused, or encoded alone and averaged (independent) or concatenated (concat).",
        choices=("fusion", "independent", "concat"),
    )
    differences: bool = option(False, "Whether first differences are encoded as further channels; use channels=concat.")
    max_channels: int = option(32, "Maximum number of channels; datasets with more are reduced.", low=1)
    reduction: str = option("variance", "Reduction of channels: largest variance, or principal components.", choices=("variance", "pca"))
    epochs: int = option(60, "Maximum number of passes over the training cases. The learning rate decays to 0.", low=1)
    min_updates: int = option(0, "Minimum number of updates. If epochs gives fewer, epochs and patience are scaled up.", low=0)
    batch_size: int = option(16, "Cases per update.", low=1)
    learning_rates: tuple[float, ...] = option(
        (3e-4, 1e-3, 3e-3), "Peak learning rates; validation selects.", above=0, unique=True, nonempty=True
    )
    ensemble_size: int = option(1, "Number of networks whose class probabilities are averaged.", low=1)
    warmup_fraction: float = option(0.1, "Fraction of the updates with linear warm-up.", low=0, below=1)
    weight_decay: float = option(0.05, "Decoupled weight decay.", low=0)
    layer_decay: float = option(1.0, "Factor of the learning rate from each block to the block below; 1 is none.", above=0, high=1)
    label_smoothing: float = option(0.0, "Label smoothing.", low=0, below=1)
    crop_ratio: tuple[float, float] = option((0.8, 1.0), "Minimum and maximum crop, as a fraction of the series.", above=0, high=1)
    selection: str = option("train", "Split that selects epoch and rate; test is biased, as in the paper.", choices=("train", "test"))
    validation_fraction: float = option(0.2, "Fraction of each class of the train split that is held out for validation.", low=0, below=1)
    min_validation_cases: int = option(
        30, "Minimum number of validation cases; with fewer, all cases train for all epochs with the middle learning rate.", low=1
    )
    patience: int = option(20, "Epochs without improvement before a network stops; 0 is never.", low=0)
    num_window_offsets: int = option(0, "Number of window offsets over which probabilities are averaged; 0: of the encoder.", low=0)
    refit: bool = option(False, "Whether networks are trained again on all cases with the selected learning rate and epoch.")

    def _check(self) -> None:
        if self.crop_ratio[0] > self.crop_ratio[1]:
            raise InputError(f"{self._prefix}crop_ratio is {self.crop_ratio}; choose a minimum that is not above the maximum")
        if self.differences and self.channels == "fusion":
            raise InputError(f"{self._prefix}differences is true and {self._prefix}channels is 'fusion'; choose concat or independent")

    def with_min_updates(self, cases: int) -> "TuningSettings":
        """Return the settings with as many epochs as `min_updates` needs with this number of training cases."""
        updates = self.epochs * math.ceil(cases / self.batch_size)
        factor = max(1.0, self.min_updates / updates)
        grown = {name: math.ceil(getattr(self, name) * factor) for name in ("epochs", "patience")}
        return dataclasses.replace(self, **grown)

    def with_middle_rate(self) -> "TuningSettings":
        """Return the settings with the middle learning rate alone."""
        return dataclasses.replace(self, learning_rates=self.learning_rates[len(self.learning_rates) // 2 :][:1])

    def describe(self) -> str:
        """Return the strategy and the values that differ from the defaults, the setting of a row of results."""
        other = [f for f in dataclasses.fields(self) if f.name != "strategy" and getattr(self, f.name) != f.default]
        parts = [f"strategy={self.strategy}"]
        for field in other:
            value = getattr(self, field.name)
            parts.append(f"{field.name}={','.join(f'{one:g}' for one in value) if isinstance(value, tuple) else value}")
        return " ".join(parts)


@dataclass(frozen=True)
class FinetuneConfig(TuningSettings, prefix="finetune"):
    """Choices of the protocols finetune, average and fewshot_finetune, those of `nutime fit`."""


@dataclass(frozen=True)
class SweepConfig(Section):
    """Configuration of `nutime sweep`: every combination is evaluated."""

    name: str = option("sweep", "Name of the sweep.")
    encoders: tuple[str, ...] = option(
        (), "Encoders, [name=]path or [name=]untrained:path (untrained baseline). Equal names are repetitions."
    )
    sources: tuple[str, ...] = option(("bundled",), "Names of bundled datasets, files and folders.")
    point_anomaly: tuple[str, ...] = option((), "Files of series with labelled time points (point anomalies).")
    window: int = option(32, "Window of point_anomaly, in time points.", low=1)
    stride: int = option(8, "Stride of the windows of point_anomaly, in time points.", low=1)
    baselines: tuple[str, ...] = option(
        ("raw_1nn", "raw_forest", "minirocket"),
        "raw_1nn, raw_1nn_dtw, raw_forest, minirocket, multirocket_hydra, fcn, resnet, inceptiontime or registered, on raw series.",
    )
    protocols: tuple[str, ...] = option(
        ("kernel", "ridge", "knn"),
        "kernel, ridge, logistic, knn, 1nn, forest, fewshot, clustering, anomaly, finetune, average, fewshot_finetune or registered.",
    )
    layers: tuple[str, ...] = option(("last",), "Layers: numbers from 0 (the embedding), last (normalised), or all.")
    poolings: tuple[str, ...] = option(
        ("encoder",), "Poolings: encoder (its default), or others, see models/pooling.py.", choices=("encoder", *POOLINGS)
    )
    setting: str = option("", "Named setting of every encoder, fast or accurate; empty is its default.", choices=("", "fast", "accurate"))
    normalise: str = option("", "Normalisation of series, none or dataset; empty is that of the encoder.", choices=("", *NORMALISATIONS))
    input_lengths: tuple[str, ...] = option(("encoder",), "Lengths of series: encoder (its default), numbers, or sums (512+1024).")
    num_window_offsets: tuple[str, ...] = option(("encoder",), "Numbers of window offsets: encoder (its default), or numbers.")
    diff_orders: tuple[str, ...] = option(("encoder",), "Difference orders: encoder (its default), 0, 1 or 0+1.")
    channels: tuple[str, ...] = option(("concat",), "Combinations of the features of channels.", choices=("mean", "concat"))
    scalers: tuple[str, ...] = option(("standard",), "Scalers of the features of probes: none, standard or minmax.")
    shots: tuple[int, ...] = option((5,), "Cases per class of few-shot tasks.", low=1)
    tasks: int = option(100, "Number of few-shot tasks with frozen features.", low=1)
    tuned_tasks: int = option(10, "Number of few-shot tasks with fine-tuning.", low=1)
    seeds: tuple[int, ...] = option((0,), "Seeds of random protocols.", low=0, high=2**32 - 1, nonempty=True)
    finetune: FinetuneConfig = FinetuneConfig()


def shipped_configs() -> dict[str, Path]:
    """Return name and file of every configuration that comes with the package."""
    package = Path(__file__).parent
    # A wheel has them inside the package; in a checkout (or an editable install of it) they are next to it.
    folder = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def load_config(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    schema: type[Config] = PretrainConfig,
    encoder: PretrainConfig | None = None,
) -> Config:
    """Load a configuration.

    Args:
        name_or_path: name of a shipped configuration, or path of a Python file whose `get_config()` returns the
            fields that differ from the defaults as an ml_collections ConfigDict or a dictionary.
        overrides: "section.field=value" each.
        schema: class of the configuration.
        encoder: configuration of an encoder to start from: its model, lengths and features are the defaults.

    Raises:
        InputError: the configuration or a field does not exist, or a value is not accepted.
    """
    shipped = shipped_configs()
    path = Path(name_or_path).expanduser() if name_or_path.endswith(".py") else shipped.get(name_or_path)
    if path is None or not path.is_file():
        raise InputError(
            f"configuration {name_or_path!r} does not exist{nearest(name_or_path, shipped)}; "
            f"choose one of {', '.join(shipped)}, or a path of a .py file"
        )
    base = schema() if encoder is None else from_dict(schema, to_dict(encoder, encoder=True))
    return override(read_file(base, path, example=shipped["quickstart"]), *overrides)
