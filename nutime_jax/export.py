"""An encoder as a program that needs none of this library: a folder with the program, the weights and a card.

The folder is an encoder's bundle (`bundle`), which `load_encoder` reads, with one file more: `program.jax`, the
encoder by `jax.export`, for CPU, CUDA and TPU, any number of series and any length. Weights and configuration are the
archive. The program is not: an older JAX does not read it, so it is made anew from them whenever it is needed.
"""

import importlib.metadata
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import export

from nutime_jax.bundle import PROGRAM, check_output_dir, is_bundle, load_bundle, read_file, save_bundle
from nutime_jax.config import to_dict
from nutime_jax.core.resample import MAX_LENGTH, resize
from nutime_jax.core.windows import average_over_offsets, make_offset_views, window_offset_starts
from nutime_jax.data.series import centre_to_float32, clean_series, pad_series, split_long_series
from nutime_jax.encoder import KIND, SCHEMA, Encoder
from nutime_jax.errors import InputError, extra
from nutime_jax.loading import WEIGHTS, list_pretrained
from nutime_jax.models.pooling import pool_tokens

PLATFORMS = ("cpu", "cuda", "tpu")
SHAPES = r"float32\[b,t\], int32\[b\], float32\[b\] -> float32\[b,\d+\]"
"""Arguments and result of a program: series, lengths, offsets; features."""


@dataclass(frozen=True)
class ExportedEncoder:
    """A program that embeds series, loaded.

    about: what its folder says of it: jax, platforms, length, max_length, layer, readout, features.
    program: (series float32 (b, t), lengths int32 (b,), offsets float32 (b,)) -> features float32 (b, features).
    """

    about: dict[str, Any]
    program: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    def embed(self, series: Sequence[np.ndarray], *, batch_size: int = 256) -> np.ndarray:
        """Features of series of one channel, as `Encoder.embed` makes them; float32, (cases, features).

        Args:
            series: (time,) each, of any length and scale, missing values allowed.
            batch_size: pieces embedded at once.

        Raises:
            InputError: no series, or one that is not numbers of such a shape.
        """
        if not len(series):
            raise InputError("there is no series to embed")
        cases = [clean_series(one, name=f"case {i}") for i, one in enumerate(series)]
        for i, case in enumerate(cases):
            if len(case) > 1:
                raise InputError(f"case {i} has {len(case)} channels; an exported program embeds series of one, so give them one by one")
        pieces = [split_long_series(case[0], self.about["max_length"]) for case in cases]
        counts = np.array([len(one) for one in pieces])
        flat = list(chain(*pieces))
        order = np.argsort([len(one) for one in flat], kind="stable")  # alike lengths share a padded width
        features = np.empty((len(flat), self.about["features"]), np.float32)
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            features[rows] = self._run([flat[i] for i in rows])
        return np.add.reduceat(features, np.cumsum(counts) - counts) / counts[:, None].astype(np.float32)

    def _run(self, pieces: list[np.ndarray]) -> np.ndarray:
        values, offsets = zip(*map(centre_to_float32, pieces), strict=True)
        width = min(1 << (len(values[-1]) - 1).bit_length(), MAX_LENGTH)  # powers of two: few shapes, so few compilations
        return np.asarray(self.program(*pad_series(list(values), width), np.array(offsets, np.float32)))


def export_encoder(
    encoder: Encoder, folder: str | os.PathLike, *, layer: int | None = None, pooling: str | None = None, card: str = ""
) -> Path:
    """Writes a folder with an encoder's program, weights, configuration and card; an older encoder there is replaced.

    Args:
        layer, pooling: what the program reads out; see `Encoder.embed`.
        card: a text about the encoder, in Markdown, that is put below what is said of the program.

    Raises:
        InputError: no such layer or pooling, or the folder cannot be written, or holds something else.
    """
    _check_serialization()
    check_output_dir(folder, kind=KIND)
    pooling = encoder.choose_pooling(layer=layer, pooling=pooling)
    program = export_program(encoder, layer=layer, pooling=pooling)
    about = {
        "jax": jax.__version__,
        "library": _library_version(),
        "platforms": list(program.platforms),
        "lengths": list(encoder.input_lengths),
        "orders": list(encoder.diff_orders),
        "shifts": encoder.num_window_offsets,
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


def export_program(encoder: Encoder, *, layer: int | None = None, pooling: str | None = None) -> export.Exported:
    """The encoder as a program; see `ExportedEncoder` for its arguments.

    A row of `series` counts up to its length; what follows is never read. `offsets` is what was taken from each row so
    that its shape fits float32 (`data.series.centre_to_float32`), zero otherwise. A length outside 1 to t makes all of the
    result NaN. Weights are part of the program: it cannot be run with those of another encoder, nor without its own.

    Raises:
        InputError: no such layer or pooling.
    """
    network = encoder.network
    pooling = encoder.choose_pooling(layer=layer, pooling=pooling)
    variables = jax.tree.map(np.asarray, encoder.variables)

    def embed(series: jax.Array, lengths: jax.Array, offsets: jax.Array) -> jax.Array:
        known = jnp.all((lengths >= 1) & (lengths <= series.shape[1]))

        def fusion_barrier(x: jax.Array) -> jax.Array:
            # XLA fuses across `optimization_barrier`, but not across a branch; core/resample.py says why that matters.
            return jax.lax.cond(known, lambda x: x, lambda x: jnp.full_like(x, jnp.nan), x)

        # Otherwise XLA computes with the weights as it compiles, and rounds otherwise than the device.
        held = jax.lax.optimization_barrier(variables)

        def embed_at(order: int, length: int) -> jax.Array:
            size = length + window_offset_starts(encoder.num_window_offsets, network.config.window_stride)[-1]
            values, points = _difference(series, lengths) if order else (series, lengths)
            views = fusion_barrier(
                jax.vmap(lambda one, points: resize(one, size, length=points, fusion_barrier=fusion_barrier))(values, points)
            )
            added = jnp.repeat(jnp.zeros_like(offsets) if order else offsets, encoder.num_window_offsets, axis=0)
            arrays = make_offset_views(views, encoder.num_window_offsets, network.config.window_stride)[:, None], added[:, None]
            with jax.default_matmul_precision("highest"):
                return average_over_offsets(
                    pool_tokens(network.apply(held, *arrays), layer=layer, pooling=pooling), encoder.num_window_offsets
                )

        return jnp.concatenate([embed_at(order, length) for order in encoder.diff_orders for length in encoder.input_lengths], axis=-1)

    batch, time = export.symbolic_shape("b, t", constraints=[f"t <= {MAX_LENGTH}"])
    shapes = (((batch, time), np.float32), ((batch,), np.int32), ((batch,), np.float32))
    return export.export(jax.jit(embed), platforms=PLATFORMS)(*(jax.ShapeDtypeStruct(*one) for one in shapes))


def _difference(series: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`data.series.difference` of rows (batch, time) that count up to their lengths, and the lengths of what is left."""
    largest = jnp.finfo(series.dtype).max
    steps = jnp.clip(jnp.diff(series, append=series[:, -1:]), -largest, largest)
    return jnp.where(lengths[:, None] > 1, steps, 0), jnp.where(lengths > 1, lengths - 1, lengths)


def _check_serialization() -> None:
    with extra("export"):
        import flatbuffers  # noqa: F401  jax.export serialises with it, and does not require it


def load_exported(folder: str | os.PathLike) -> ExportedEncoder:
    """Loads the program of a folder that `export_encoder` wrote.

    A program is code. This one is run only if it is what was written, and calls nothing outside of itself.

    Raises:
        InputError: the folder holds no program, or a damaged one, or one that this JAX does not read.
    """
    _check_serialization()
    about = load_bundle(folder, kind=KIND, schema=SCHEMA, writer="`nutime export`").about
    if Path(PROGRAM).stem not in about or not isinstance(about.get("export"), dict):
        raise InputError(f"{folder} holds an encoder and no program; make one of it by `nutime export`")
    try:
        program = export.deserialize(bytearray(read_file(folder, PROGRAM, about)))
        text = program.mlir_module()
    except InputError:
        raise
    except Exception as error:  # another version of its format, or bytes that are none
        raise InputError(
            f"{folder} has a program of JAX {about['export'].get('jax')}, which JAX {jax.__version__} does not read "
            f"({type(error).__name__}); make it anew by `nutime export --encoder={folder}`"
        ) from error
    # Checks of shapes are spelt as calls, and are all that is ever written. Any other reaches into the machine.
    if text.count("custom_call") != text.count("custom_call @shape_assertion("):
        raise InputError(f"{folder} has a program that calls what is outside of it; make it anew by `nutime export --encoder={folder}`")
    shapes, longest = _shapes(program), about["export"].get("max_length")
    if re.fullmatch(SHAPES, shapes) is None or type(longest) is not int or longest < 1:
        raise InputError(f"{folder} has a program of another form ({shapes}); make it anew by `nutime export --encoder={folder}`")
    return ExportedEncoder({**about["export"], "features": program.out_avals[0].shape[1]}, jax.jit(program.call))


def _shapes(program: export.Exported) -> str:
    return " -> ".join(", ".join(map(str, avals)) for avals in (program.in_avals, program.out_avals))


def read_card(name_or_path: str | os.PathLike) -> str:
    """What the card of an encoder says of it, by what `load_encoder` takes; empty where there is none.

    Raises:
        InputError: the folder is damaged.
    """
    path = WEIGHTS / name_or_path if os.fspath(name_or_path) in list_pretrained() else name_or_path
    if not is_bundle(path):
        return ""
    contents = load_bundle(path, kind=KIND, schema=SCHEMA, writer="`Encoder.save`")
    if "export" not in contents.about:
        return contents.card.strip()
    return contents.card.partition(HEADING)[2].strip().partition("\n\n")[2]  # below the line that is written anew


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
"""The lines of the card that load a program; a test runs them."""
HEADING = "## The encoder"


def _read(orders: Sequence[int]) -> str:
    """What is read of series, with its verb."""
    words = {(0,): "Series", (1,): "Differences of neighbouring points"}
    return f"{words.get(tuple(orders), 'Series, and differences of neighbouring points,')} are"


def _card(encoder: Encoder, about: dict[str, Any], text: str) -> str:
    model = encoder.config.model
    parameters = sum(np.size(array) for array in jax.tree.leaves(encoder.variables["params"]))
    layer = "the last layer, normalised" if about["layer"] is None else f"layer {about['layer']}"
    heads = f", heads {model.num_heads} x {model.head_dim}" if model.backbone == "transformer" else ""
    windows = " and ".join(str(size) if step == size else f"{size} every {step}" for size, step in model.window_specs)
    size = f"{model.backbone} of depth {model.depth}, width {model.width}{heads}, window {windows}"
    below = f"\n{text.strip()}\n" if text.strip() else ""
    return f"""# Exported NuTime encoder

`program.jax` turns time series of any length and numerical scale into {about["features"]} features each. It needs
`jax>={about["jax"]}` and `flatbuffers`, and nothing else:

```python
{LOADING}
```

| | |
|---|---|
| `series` | float32 (b, t): a series a row, finite up to its length; t at most {MAX_LENGTH:,} |
| `lengths` | int32 (b,): points of each row that count, 1 to t; one outside of that makes all of the result NaN |
| third argument | float32 (b,): what was subtracted from a row that float32 cannot hold (small changes at a high level); else 0 |
| result | float32 (b, {about["features"]}) |
| platforms | {", ".join(about["platforms"])} |

- Every new (b, t) is compiled once: pad t to a power of two and keep b.
- Missing values: cut them off at the ends, interpolate them inside; NaN in a row makes its features NaN.
- A series of more than {about["max_length"]} points is to be cut into the fewest pieces of (nearly) equal length that are no
  longer (`np.array_split`), and the features of its pieces averaged.
- Several channels: every channel is a row; average or concatenate their features.
- {_read(about["orders"])} resized to {" and to ".join(map(str, about["lengths"]))} points, and cut into windows {about["shifts"]} times, a
  part of a window further on each time; {layer}, pooling {about["readout"]}, is read out and averaged; all in float32.
- A program is code: run it only if you trust where it comes from. An older JAX than {about["jax"]} may not read it. The
  archive is `weights.safetensors` with `config.json`, from which `nutime export --encoder=FOLDER` makes it anew.

{HEADING}

{encoder.config.name}: {parameters:,} parameters, {size}. Made by nutime_jax {about["library"]} with JAX {about["jax"]}.
{below}"""
