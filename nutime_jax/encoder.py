"""Frozen encoder: series of any length and scale to features."""

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_origin

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from nutime_jax.bundle import save_bundle
from nutime_jax.config import EvaluationConfig, PretrainConfig, options, override, to_dict, update
from nutime_jax.data.inputs import clean_cases, iter_clean_cases
from nutime_jax.data.series import add_channel_differences, channel_statistics, normalise_channels
from nutime_jax.embedding import DeviceWeights, Extraction, combine_channels, concatenate_segments, iter_features, mean_segments, stack_rows
from nutime_jax.errors import InputError
from nutime_jax.models.network import (
    NuTimeEncoder,
    build_encoder,
    check_diff_orders,
    check_input_lengths,
    check_num_window_offsets,
)
from nutime_jax.models.pooling import ALL_LAYERS, LayerwiseOutput, PooledOutput, TokenOutput, check_pooling
from nutime_jax.progress import track

CHANNELS = ("mean", "concat", "none")
SETTINGS = ("fast", "accurate")
"""Names of settings, fields of `evaluation` that list what differs from its other fields."""
KIND, SCHEMA = "encoder", 1


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """Frozen encoder: configuration and weights. Encoders with equal weights and settings are equal.

    config: configuration of its run. `model`, `length` (time points of a view), `data.max_length` (maximum time points of
        a segment), and `input_lengths`, `diff_orders`, `num_window_offsets` and `pooling` of `evaluation` determine features.
    variables: weights of the network.
    """

    config: PretrainConfig
    variables: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "_device_weights", DeviceWeights(self.variables))

    @property
    def network(self) -> NuTimeEncoder:
        """The Flax module."""
        return build_encoder(self.config.model)

    @property
    def input_lengths(self) -> tuple[int, ...]:
        """Lengths to which each series is resized, in time points; 0 is its bucket. Features of all lengths are concatenated."""
        return self.config.evaluation.input_lengths or (self.config.length,)

    def lengths_of(self, native: int) -> tuple[int, ...]:
        """Return the lengths to which a series of `native` time points is resized.

        An input length of 0 is the smallest of `evaluation.length_buckets` that is not shorter than the series, or the largest.
        """
        buckets = self.config.evaluation.length_buckets
        bucket = min((bucket for bucket in buckets if bucket >= native), default=max(buckets))
        return tuple(length or bucket for length in self.input_lengths)

    def for_training(self, native: int) -> "Encoder":
        """Return a copy whose `length` is the first of `lengths_of(native)`: views of fine-tuning have it."""
        return self._with_config(update(self.config, {"length": self.lengths_of(native)[0]})) if self.input_lengths[0] == 0 else self

    @property
    def diff_orders(self) -> tuple[int, ...]:
        """Difference orders: 0 is the series, 1 its first difference; features of all orders are concatenated."""
        return self.config.evaluation.diff_orders or (0,)

    @property
    def num_window_offsets(self) -> int:
        """Number of window offsets, evenly spaced within one stride; features are averaged over them."""
        return self.config.evaluation.num_window_offsets

    @property
    def pooling(self) -> str:
        """Default pooling of the tokens, see `models.pooling.pool_tokens`."""
        return self.config.evaluation.pooling

    def with_options(
        self,
        *,
        input_lengths: Sequence[int] | None = None,
        num_window_offsets: int | None = None,
        diff_orders: Sequence[int] | None = None,
        precision: str | None = None,
        normalise: str | None = None,
    ) -> "Encoder":
        """Return a copy with other feature-extraction settings. The weights are shared. None keeps the current value.

        Args:
            input_lengths: Lengths to which each series is resized, in time points; 0 is its bucket, see `lengths_of`. Features
                of all lengths are concatenated. Short lengths cover more context per window; long lengths keep more detail.
            num_window_offsets: Number of window offsets, from 1 to the window stride. Features are averaged over the
                offsets. This reduces the dependence on window boundaries. Cost grows linearly.
            diff_orders: Difference orders: (0,) the series, (1,) its first difference, (0, 1) both, concatenated.
                Differences expose small fast changes on top of a large slow trend.
            precision: Precision of float32 matmuls, as in `jax.lax.Precision`: "highest" is float32; "high" and "default" are
                faster and coarser on TPUs (3 and 1 passes of bfloat16) and GPUs (TF32). CPUs compute float32 at any.
            normalise: "dataset" normalises channels over a dataset, see `fit_normalisation`; "none" leaves series as they are.

        Raises:
            InputError: Windows do not tile a length exactly; a length needs more than `max_tokens` tokens; the number of
                offsets or a difference order is out of range; the precision or the normalisation is unknown.
        """
        lengths = self.input_lengths if input_lengths is None else input_lengths
        offsets = self.num_window_offsets if num_window_offsets is None else num_window_offsets
        orders = self.diff_orders if diff_orders is None else diff_orders
        checked = check_input_lengths(lengths, self.network)
        if 0 in checked:
            check_input_lengths(self.config.evaluation.length_buckets, self.network)
        settings = {
            "input_lengths": checked,
            "num_window_offsets": check_num_window_offsets(offsets, self.network),
            "diff_orders": check_diff_orders(orders),
            "precision": self.config.evaluation.precision if precision is None else precision,
            "normalise": self.config.evaluation.normalise if normalise is None else normalise,
        }
        return self._with_config(update(self.config, {"evaluation": settings}))

    def fit_normalisation(self, X: Any) -> "Encoder":
        """Return a copy with mean and std of each channel over training series, if `normalise` is "dataset" and it has none.

        Estimators, `fit_probe`, `fine_tune`, `nutime fit`, `evaluate` and `sweep` call it with their training cases. The statistics
        are part of the configuration: they are saved, and applied to all series that the encoder receives.

        Args:
            X: series in any form of `data.inputs.read_series`.

        Raises:
            InputError: see `read_series`.
        """
        evaluation = self.config.evaluation
        if evaluation.normalise == "none" or evaluation.channel_means:
            return self
        means, stds = channel_statistics(clean_cases(X))
        fitted = {"channel_means": tuple(means.tolist()), "channel_stds": tuple(stds.tolist())}
        return self._with_config(update(self.config, {"evaluation": fitted}))

    def with_setting(self, name: str) -> "Encoder":
        """Return a copy with a named setting of this encoder: "fast" (at most 2 passes per series) or "accurate" (at most 8).

        Raises:
            InputError: the setting is unknown, or the encoder does not define it.
        """
        if name not in SETTINGS:
            raise InputError(f"setting {name!r} is unknown; choose {' or '.join(SETTINGS)}")
        changes = getattr(self.config.evaluation, name)
        if not changes:
            raise InputError(f"encoder {self.config.name!r} has no setting {name!r}; set evaluation.{name}, or remove the setting")
        return self._with_config(override(self.config, *map(_expand_change, changes)))

    def _with_config(self, config: PretrainConfig) -> "Encoder":
        copy = dataclasses.replace(self, config=config)
        object.__setattr__(copy, "_device_weights", self._device_weights)
        return copy

    def __reduce__(self) -> tuple:
        """Return the fields, without arrays on devices, for pickles."""
        return type(self), (self.config, self.variables)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Encoder":
        """Return the encoder itself, which is frozen, so that clones of an estimator share its weights."""
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoder):
            return NotImplemented
        return self is other or (self._settings == other._settings and _equal_trees(self.variables, other.variables))

    def __hash__(self) -> int:
        return hash((self.config.model, self.input_lengths, self.diff_orders))

    @property
    def _settings(self) -> dict[str, Any]:
        """The fields of the configuration that determine features, as they are saved."""
        return to_dict(self.config, encoder=True)

    def __repr__(self) -> str:
        # Without the weights, since representations of estimators include the encoder.
        model, lengths = self.config.model, "+".join(map(str, self.input_lengths))
        return f"<Encoder {self.config.name!r}: width {model.width}, depth {model.depth}, length {lengths}>"

    def embed(
        self,
        X: Any,
        *,
        layer: int | None = None,
        pooling: str | None = None,
        channels: str = "concat",
        batch_size: int = 256,
        tokens: bool = False,
        progress: bool | None = None,
    ) -> np.ndarray | Iterator[np.ndarray]:
        """Return features of series of any length and scale; missing values are allowed (see `data.series.clean_series`).

        Channels are encoded separately. A channel longer than `config.data.max_length` is split into segments
        (`data.series.split_long_series`), and the features of the segments are averaged. Features of a case depend on
        `batch_size` and on the other cases only by rounding (1e-5 + 1e-6 times the feature). X is not modified. All local
        devices are used.

        Args:
            X: (cases, time), (cases, channels, time), a sequence of arrays (time,) or (channels, time), a table, or another
                form of `data.inputs.read_series`; or an iterator of such arrays, one per case.
            layer, pooling: see `models.pooling.pool_tokens`. None is the default pooling of the encoder; with a layer,
                "cls+mean" in place of all layers. Features of all difference orders and input lengths are concatenated.
            channels: "concat" of the features of the channels of a case (and of their differences, if
                `evaluation.channel_differences` is true), their "mean", or "none": (cases, channels, features).
            batch_size: maximum number of segments per batch.
            tokens: return the window tokens of `layer` in order of time, without CLS, of the series itself at
                `config.length` time points; `pooling` is ignored. Tokens of the segments of a long series are
                concatenated in time, those of channels along the last axis ("concat"). Needs a single window size.
            progress: whether to show a bar; None shows it in a terminal or a notebook after two seconds. Iterators have none.

        Returns:
            float32 (cases, features): width for "cls" and "mean", 2 width for "cls+mean", 2 (depth + 1) width for
            "all_layers"; times the number of input lengths and of difference orders. With tokens (cases, windows, width),
            or (cases, channels, windows, width) for "none". For an iterator, an iterator of rows in input order, which
            holds at most three batches.

        Raises:
            InputError: X is empty or has another form, or an option is not accepted. For an iterator, raised at the case.
        """
        pooling = self.choose_pooling(layer=layer, pooling=pooling)
        self._check_options(layer=layer, pooling=pooling, channels=channels, batch_size=batch_size, tokens=tokens)
        output = TokenOutput(layer) if tokens else PooledOutput(layer, pooling)
        extraction = self._token_extraction if tokens else self._extraction
        combine = partial(combine_channels, channels=channels, merge_segments=concatenate_segments if tokens else mean_segments)
        prepare = partial(self.prepare_case, differences=channels == "concat" and not tokens)
        if isinstance(X, Iterator):
            return iter_features(extraction, output, map(prepare, iter_clean_cases(X)), combine=combine, batch_size=int(batch_size))
        cases = clean_cases(X)
        if tokens:
            self._check_segment_counts(cases)
        rows = iter_features(extraction, output, map(prepare, cases), combine=combine, batch_size=int(batch_size))
        return stack_rows(track(rows, total=len(cases), desc="embedding", unit=" series", shown=progress), len(cases))

    def prepare_case(self, case: np.ndarray, *, differences: bool = True) -> np.ndarray:
        """Return the channels to encode: normalised, and with those of `evaluation.channel_differences`.

        Raises:
            InputError: the normalisation is not fitted, or the case has other channels.
        """
        case = normalise_case(case, self.config.evaluation)
        return add_channel_differences(case) if differences and self.config.evaluation.channel_differences else case

    def embed_layers(self, series: Sequence[np.ndarray], *, batch_size: int = 256) -> np.ndarray:
        """Return CLS token and mean window token of every layer, and the pooled stem features; otherwise like `embed`.

        Args:
            series: channels (time,) from `data.series.clean_series`.
            batch_size: maximum number of segments per batch.

        Returns:
            float32 (series, features), see `models.pooling.split_layers`. Needs one input length and difference order.
        """
        combine = partial(combine_channels, channels="mean", merge_segments=mean_segments)
        cases = (channel[None] for channel in series)
        rows = iter_features(self._extraction, LayerwiseOutput(), cases, combine=combine, batch_size=batch_size)
        return stack_rows(rows, len(series))

    def choose_pooling(self, *, layer: int | None, pooling: str | None) -> str:
        """Return the pooling, or the default of the encoder if it is None ("cls+mean" for a layer, if the default has all)."""
        if pooling is not None:
            return pooling
        return "cls+mean" if layer is not None and self.pooling in ALL_LAYERS else self.pooling

    def save(self, folder: str | os.PathLike, *, card: str = "", float16: bool = False) -> Path:
        """Write the encoder to a bundle (`bundle`), which `load_encoder` reads; an older encoder there is replaced.

        Only the configuration fields of an encoder are saved (`options`).

        Args:
            folder: directory of the bundle.
            card: model card in Markdown: training data, intended use, licence.
            float16: whether to round parameters to float16 (11 bits), which halves the file. They load as float32.

        Returns:
            The absolute path of the bundle.

        Raises:
            InputError: the directory cannot be written or contains something else, or a parameter exceeds float16.
        """
        about = {"encoder": to_dict(self.config, encoder=True)}
        arrays = flatten_dict(jax.tree.map(np.asarray, self.variables), sep="/")
        if float16:
            arrays |= {name: _to_float16(name, array) for name, array in arrays.items() if name.startswith("params/")}
        return save_bundle(folder, about, arrays, kind=KIND, schema=SCHEMA, card=card)

    def push_to_hub(self, repo: str, *, card: str = "", float16: bool = False, private: bool = False) -> str:
        """Upload the files of `save` to the Hugging Face Hub (extra "hub"), with the model card as the page of the repository.

        Args:
            repo: USER/NAME; created if it does not exist. Log in with `hf auth login`, or set HF_TOKEN.
            card, float16: see `save`.
            private: whether a new repository is private.

        Returns:
            The address of the commit, for `load_encoder`: hf://USER/NAME@COMMIT.

        Raises:
            InputError: the repository cannot be written, or a parameter exceeds float16.
        """
        from nutime_jax.hub import upload

        with tempfile.TemporaryDirectory() as folder:
            return upload(self.save(Path(folder) / "encoder", card=card, float16=float16), repo, private=private)

    @property
    def _extraction(self) -> Extraction:
        return Extraction(
            network=self.network,
            weights=self._device_weights,
            lengths_of=self.lengths_of,
            max_length=self.config.data.max_length,
            diff_orders=self.diff_orders,
            num_window_offsets=self.num_window_offsets,
            precision=self.config.evaluation.precision,
        )

    @property
    def _token_extraction(self) -> Extraction:
        """Tokens are those of the series itself at one length and offset."""
        return self.with_options(input_lengths=(self.config.length,), num_window_offsets=1, diff_orders=(0,))._extraction

    def _check_options(self, *, layer, pooling, channels, batch_size, tokens) -> None:
        check_pooling(self.config.model.depth, layer=layer, pooling=pooling)
        if not isinstance(channels, str) or channels not in CHANNELS:
            raise InputError(f"channels {channels!r} is unknown; choose one of {', '.join(CHANNELS)}")
        if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; choose an integer of 1 or more")
        if not isinstance(tokens, (bool, np.bool)):
            raise InputError(f"tokens is {tokens!r}; choose True or False")
        if tokens and self.config.model.extra_window_sizes:
            sizes = ", ".join(str(size) for size, _ in self.config.model.window_specs)
            raise InputError(f"tokens=True needs a single window size, and the encoder has windows of {sizes} time points; remove tokens")

    def _check_segment_counts(self, cases: Sequence[np.ndarray]) -> None:
        longest = self.config.data.max_length
        counts = sorted({-(-len(case[0]) // longest) for case in cases})
        if len(counts) > 1:
            raise InputError(
                f"With tokens=True all series must have the same number of segments (found {' and '.join(map(str, counts))}; "
                f"data.max_length is {longest}). Pass series of similar length, or iter(X) to get one array per series."
            )


def _expand_change(change: str) -> str:
    """Return the override of an entry of a setting, whose tuples have + between their values."""
    name, _, text = f"evaluation.{change}".partition("=")
    is_tuple = name in options(PretrainConfig) and get_origin(options(PretrainConfig)[name].kind) is tuple
    return f"{name}={text.replace('+', ',') if is_tuple else text}"


def _equal_trees(a: Any, b: Any) -> bool:
    """Whether two trees have the same names and the same arrays, bit for bit."""
    a, b = (flatten_dict(tree, sep="/") for tree in (a, b))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def _to_float16(name: str, array: np.ndarray) -> np.ndarray:
    if (largest := np.abs(array).max(initial=0)) > np.finfo(np.float16).max:
        raise InputError(f"{name} has {largest:.3g}, too large for float16; save the encoder without float16")
    return array.astype(np.float16)


def normalise_case(case: np.ndarray, evaluation: EvaluationConfig) -> np.ndarray:
    """Return a case, normalised as `evaluation.normalise` says.

    Raises:
        InputError: the normalisation is not fitted, or the case has other channels.
    """
    if evaluation.normalise == "none":
        return case
    if not evaluation.channel_means:
        raise InputError("normalise is 'dataset', and its statistics are not fitted; call encoder.fit_normalisation(training series)")
    return normalise_channels(case, means=evaluation.channel_means, stds=evaluation.channel_stds)
