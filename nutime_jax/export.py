"""Export of an encoder as a StableHLO program that runs without this library.

The folder is a bundle that `load_encoder` reads, plus `program.jax`: the encoder serialised by `jax.export`, for CPU, CUDA and
TPU, any number of series and any length. Archive the weights and the configuration: an older JAX may not read the program, but
`nutime export` can make it again from them.
"""

import importlib.metadata
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import export

from nutime_jax.bundle import PROGRAM, check_output_dir, load_bundle, read_file, save_bundle
from nutime_jax.config import to_dict
from nutime_jax.core.resample import MAX_LENGTH, resize
from nutime_jax.core.windows import average_over_offsets, make_offset_views, window_offset_starts
from nutime_jax.data.series import centre_to_float32, clean_series, pad_series, split_long_series
from nutime_jax.distributed.backend import use_backend
from nutime_jax.encoder import KIND, SCHEMA, Encoder
from nutime_jax.errors import InputError, extra
from nutime_jax.loading import find_bundle
from nutime_jax.models.pooling import PooledOutput, without_stem

PLATFORMS = ("cpu", "cuda", "tpu")
SHAPES = r"float32\[b,t\], int32\[b\], float32\[b\] -> float32\[b,\d+\]"
"""Arguments and result of a program: series, lengths, offsets -> features."""


@dataclass(frozen=True)
class ExportedEncoder:
    """A loaded program that embeds series.

    about: metadata: jax, platforms, lengths, orders, shifts, max_length, layer, readout, features.
    program: (series float32 (b, t), lengths int32 (b,), offsets float32 (b,)) -> features float32 (b, features).
    """

    about: dict[str, Any]
    program: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    @use_backend()
    def embed(self, series: Sequence[np.ndarray], *, batch_size: int = 256) -> np.ndarray:
        """Return features of univariate series, equal to those of `Encoder.embed`; float32, shape (cases, features).

        Args:
            series: one array of shape (time,) per case, of any length and scale; missing values are allowed.
            batch_size: segments per call of the program.

        Raises:
            InputError: the list is empty, or a series is not numeric or has another shape.
        """
        if not len(series):
            raise InputError("The list of series is empty. Pass at least one.")
        cases = [clean_series(values, name=f"case {i}") for i, values in enumerate(series)]
        for i, case in enumerate(cases):
            if len(case) > 1:
                raise InputError(f"case {i} has {len(case)} channels. An exported program embeds single channels: pass each as a series.")
        segments = [split_long_series(case[0], self.about["max_length"]) for case in cases]
        counts = np.array([len(parts) for parts in segments])
        flat = list(chain(*segments))
        lengths = np.array([len(segment) for segment in flat])
        features = np.empty((len(flat), self.about["features"]), np.float32)
        buckets = np.minimum(np.searchsorted(self.about["buckets"], lengths), len(self.about["buckets"]) - 1)
        for bucket in np.unique(buckets):
            order = np.flatnonzero(buckets == bucket)
            order = order[np.argsort(lengths[order], kind="stable")]  # similar lengths share a padded width
            for begin in range(0, len(order), batch_size):
                rows = order[begin : begin + batch_size]
                features[rows] = self._run([flat[i] for i in rows])
        return np.add.reduceat(features, np.cumsum(counts) - counts) / counts[:, None].astype(np.float32)

    def _run(self, segments: list[np.ndarray]) -> np.ndarray:
        values, offsets = zip(*map(centre_to_float32, segments), strict=True)
        width = min(1 << (len(values[-1]) - 1).bit_length(), MAX_LENGTH)  # powers of two: few shapes and compilations
        return np.asarray(self.program(*pad_series(list(values), width), np.array(offsets, np.float32)))


def export_encoder(
    encoder: Encoder, folder: str | os.PathLike, *, layer: int | None = None, pooling: str | None = None, card: str = ""
) -> Path:
    """Write a folder with program, weights, configuration and model card; an existing encoder in it is replaced.

    Args:
        layer, pooling: features of the program; see `Encoder.embed`.
        card: Markdown text about the encoder, appended to the description of the program.

    Raises:
        InputError: the layer or pooling does not exist, or the folder cannot be written or has other contents.
    """
    _check_serialization()
    check_output_dir(folder, kind=KIND)
    if encoder.config.evaluation.normalise != "none":
        raise InputError("normalise is 'dataset', and a program does not normalise; export with normalise='none', and normalise the series")
    pooling = encoder.choose_pooling(layer=layer, pooling=pooling)
    program = export_program(encoder, layer=layer, pooling=pooling)
    about = {
        "jax": jax.__version__,
        "library": _library_version(),
        "platforms": list(program.platforms),
        "lengths": list(encoder.input_lengths),
        "orders": list(encoder.diff_orders),
        "shifts": encoder.num_window_offsets,
        "buckets": _buckets(encoder),
        "max_length": encoder.config.data.max_length,
        "layer": layer,
        "readout": pooling,
        "features": program.out_avals[0].shape[1],
    }
    arrays = flatten_dict(jax.tree.map(np.asarray, encoder.variables), sep="/")
    return save_bundle(
        folder,
        {"encoder": to_dict(encoder.config, encoder=True), "export": about},
        arrays,
        kind=KIND,
        schema=SCHEMA,
        card=_card(encoder, about, card),
        program=bytes(program.serialize()),
    )


@use_backend()
def export_program(encoder: Encoder, *, layer: int | None = None, pooling: str | None = None) -> export.Exported:
    """Return the encoder as a program; see `ExportedEncoder` for its arguments.

    Values of a row beyond its length are ignored. With an input length of 0, all rows of a call are resized to the bucket of
    the longest (`Encoder.lengths_of`); rows of another bucket make the entire result NaN. `offsets` was subtracted from each
    row so that its shape fits float32 (`data.series.centre_to_float32`); it is zero otherwise. A length outside 1 to t makes
    the entire result NaN. The program includes the weights.

    Raises:
        InputError: the layer or pooling does not exist.
    """
    network = encoder.network
    pooling = encoder.choose_pooling(layer=layer, pooling=pooling)
    variables = jax.tree.map(np.asarray, encoder.variables)

    buckets = _buckets(encoder)

    def bucket_of(lengths: jax.Array) -> jax.Array:
        """Return the index of the bucket, see `Encoder.lengths_of`."""
        return jnp.minimum(jnp.searchsorted(jnp.array(buckets), lengths), len(buckets) - 1)

    def embed(series: jax.Array, lengths: jax.Array, offsets: jax.Array) -> jax.Array:
        known = jnp.all((lengths >= 1) & (lengths <= series.shape[1]) & (bucket_of(lengths) == bucket_of(lengths.max())))

        def fusion_barrier(x: jax.Array) -> jax.Array:
            # XLA fuses across `optimization_barrier`, but not across a branch; core/resample.py says why that matters.
            return jax.lax.cond(known, lambda x: x, lambda x: jnp.full_like(x, jnp.nan), x)

        # Without this, XLA folds constants of the weights at compile time, with other rounding than the device.
        held = jax.lax.optimization_barrier(variables)

        def embed_at(order: int, length: int, output: PooledOutput) -> jax.Array:
            size = length + window_offset_starts(encoder.num_window_offsets, network.config.window_stride)[-1]
            values, points = _difference(series, lengths) if order else (series, lengths)
            views = fusion_barrier(
                jax.vmap(lambda row, points: resize(row, size, length=points, fusion_barrier=fusion_barrier))(values, points)
            )
            added = jnp.repeat(jnp.zeros_like(offsets) if order else offsets, encoder.num_window_offsets, axis=0)
            arrays = make_offset_views(views, encoder.num_window_offsets, network.config.window_stride)[:, None], added[:, None]
            with jax.default_matmul_precision(encoder.config.evaluation.precision):
                return average_over_offsets(output(network.apply(held, *arrays)), encoder.num_window_offsets)

        def embed_in_bucket(bucket: int) -> jax.Array:
            output = PooledOutput(layer, pooling)
            first, *others = product(encoder.diff_orders, encoder.lengths_of(bucket))
            return jnp.concatenate([embed_at(*first, output), *(embed_at(*other, without_stem(output)) for other in others)], axis=-1)

        branches = [partial(embed_in_bucket, bucket) for bucket in buckets]
        return jnp.where(known, jax.lax.switch(bucket_of(lengths.max()), branches), jnp.nan)

    batch, time = export.symbolic_shape("b, t", constraints=[f"t <= {MAX_LENGTH}"])
    shapes = (((batch, time), np.float32), ((batch,), np.int32), ((batch,), np.float32))
    return export.export(jax.jit(embed), platforms=PLATFORMS)(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))


def _buckets(encoder: Encoder) -> list[int]:
    """Return the buckets of `Encoder.lengths_of`, ascending; a single one if the input length does not depend on the series."""
    return sorted(encoder.config.evaluation.length_buckets) if 0 in encoder.input_lengths else [1]


def _difference(series: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return first differences of rows (batch, time), as `data.series.difference` computes them, and their lengths."""
    largest = jnp.finfo(series.dtype).max
    steps = jnp.clip(jnp.diff(series, append=series[:, -1:]), -largest, largest)
    return jnp.where(lengths[:, None] > 1, steps, 0), jnp.where(lengths > 1, lengths - 1, lengths)


def _check_serialization() -> None:
    with extra("export"):
        import flatbuffers  # noqa: F401  jax.export serialises with it, and does not require it


def load_exported(folder: str | os.PathLike) -> ExportedEncoder:
    """Load the program of a folder that `export_encoder` wrote.

    A program is code. It is accepted only if its checksum matches and it makes no external calls.

    Raises:
        InputError: the folder contains no program, or the program is corrupt or not readable by this version of JAX.
    """
    _check_serialization()
    about = load_bundle(folder, kind=KIND, schema=SCHEMA, writer="`nutime export`").about
    if Path(PROGRAM).stem not in about or not isinstance(about.get("export"), dict):
        raise InputError(f"{folder} contains an encoder without a program. Make one with `nutime export`.")
    try:
        program = export.deserialize(bytearray(read_file(folder, PROGRAM, about)))
        text = program.mlir_module()
    except InputError:
        raise
    except Exception as error:  # another format version, or corrupt bytes
        raise InputError(
            f"{folder} has a program of JAX {about['export'].get('jax')}, which JAX {jax.__version__} cannot read "
            f"({type(error).__name__}). Make it again with `nutime export --encoder={folder}`."
        ) from error
    # Shape assertions are the only custom calls that export writes. Any other would run code outside the program.
    if text.count("custom_call") != text.count("custom_call @shape_assertion("):
        raise InputError(f"{folder} has a program with external calls. Make it again with `nutime export --encoder={folder}`.")
    shapes, limits = _shapes(program), (about["export"].get("max_length"), *(about["export"].get("buckets") or [None]))
    if re.fullmatch(SHAPES, shapes) is None or not all(type(limit) is int and limit >= 1 for limit in limits):
        raise InputError(f"{folder} has a program with other arguments ({shapes}). Make it again with `nutime export --encoder={folder}`.")
    return ExportedEncoder({**about["export"], "features": program.out_avals[0].shape[1]}, jax.jit(program.call))


def _shapes(program: export.Exported) -> str:
    return " -> ".join(", ".join(map(str, avals)) for avals in (program.in_avals, program.out_avals))


def read_card(name_or_path: str | os.PathLike) -> str:
    """Return the text of a model card, without the description of a program; empty if there is no card.

    Args:
        name_or_path: as for `load_encoder`.

    Raises:
        InputError: the folder is corrupt.
    """
    path = find_bundle(name_or_path)
    if path is None:
        return ""
    contents = load_bundle(path, kind=KIND, schema=SCHEMA, writer="`Encoder.save`")
    if "export" not in contents.about:
        return contents.card.strip()
    return contents.card.partition(HEADING)[2].strip().partition("\n\n")[2]  # without the line that export writes


def _library_version() -> str:
    try:
        return importlib.metadata.version("nutime_jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


LOADING = """from pathlib import Path
import jax, numpy as np
from jax import export
embed = jax.jit(export.deserialize(bytearray(Path("program.jax").read_bytes())).call)
features = embed(series, lengths, np.zeros(len(series), np.float32))"""
"""Python code in the card that loads a program; a test runs it."""
HEADING = "## The encoder"


def _card(encoder: Encoder, about: dict[str, Any], text: str) -> str:
    model = encoder.config.model
    parameters = sum(np.size(array) for array in jax.tree.leaves(encoder.variables["params"]))
    layer = "the last layer, normalised" if about["layer"] is None else f"layer {about['layer']}"
    heads = f", heads {model.num_heads} x {model.head_dim}" if model.backbone == "transformer" else ""
    windows = " and ".join(str(size) if step == size else f"{size} every {step}" for size, step in model.window_specs)
    size = f"{model.backbone} of depth {model.depth}, width {model.width}{heads}, window {windows}"
    below = f"\n{text.strip()}\n" if text.strip() else ""
    inputs = {(0,): "Series", (1,): "First differences"}.get(tuple(about["orders"]), "Series and their first differences")
    buckets = f"their bucket (the smallest of {', '.join(map(str, about['buckets']))} that is not shorter, or the largest)"
    lengths = " and to ".join(str(length) if length else buckets for length in about["lengths"])
    together = "" if len(about["buckets"]) == 1 else "\n- All rows of a call need the same bucket; otherwise the entire result is NaN."
    return f"""# Exported NuTime encoder

`program.jax` computes {about["features"]} features per time series, of any length and numerical scale. It needs only
`jax>={about["jax"]}` and `flatbuffers`:

```python
{LOADING}
```

| | |
|---|---|
| `series` | float32 (b, t): one series per row, finite up to its length; t at most {MAX_LENGTH:,} |
| `lengths` | int32 (b,): time points per row, 1 to t; any other length makes the entire result NaN |
| third argument | float32 (b,): the value subtracted from a row whose small changes at a high level do not fit float32; else 0 |
| result | float32 (b, {about["features"]}) |
| platforms | {", ".join(about["platforms"])} |

- Each new (b, t) is compiled once: pad t to a power of two and keep b.
- Missing values: remove them at the ends, interpolate them inside; NaN in a row makes its features NaN.
- Split a series of more than {about["max_length"]} points into the minimum number of (nearly) equal segments (`np.array_split`),
  and average their features.
- Several channels: pass each channel as a row; average or concatenate their features.
- {inputs} are resized to {lengths} points. Features ({layer}, pooling {about["readout"]}) are
  averaged over {about["shifts"]} window offsets. All computation is in float32.{together}
- A program is code: run it only if you trust its source. A JAX older than {about["jax"]} may not read it. Archive
  `weights.safetensors` and `config.json`: `nutime export --encoder=FOLDER` makes the program again from them.

{HEADING}

{encoder.config.name}: {parameters:,} parameters, {size}. Made by nutime_jax {about["library"]} with JAX {about["jax"]}.
{below}"""
