"""Random valid inputs, and the check that features of a case depend on nothing but the case."""

import jax
import ml_dtypes
import numpy as np

from nutime_jax.encoder import Encoder

INTEGERS = (np.bool, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.longdouble)


def random_cases(count: int, *, seed: int = 0) -> list[np.ndarray]:
    """Return cases of one channel, (time,), of all real dtypes: 1 to 5,000 time points, magnitudes 1e-38 to 3e38, missing values."""
    rng = np.random.default_rng(seed)
    dtypes = [*FLOATS * 3, *INTEGERS]
    return [random_case(rng, np.dtype(dtypes[i % len(dtypes)])) for i in range(count)]


def random_case(rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
    """Return one case of a random length, shape, magnitude and pattern of missing values."""
    time = int(np.rint(np.exp(rng.uniform(0, np.log(5000)))))
    unit = draw_shape(rng, time)
    unit = unit / max(np.abs(unit).max(), 1e-300)
    if dtype.kind in "biu":
        largest = 1 if dtype.kind == "b" else float(np.iinfo(dtype).max)
        return (unit * largest ** rng.uniform(0.2, 0.98)).clip(0 if dtype.kind in "bu" else None).astype(dtype)
    largest = float(ml_dtypes.finfo(dtype).max) if dtype.itemsize < 8 else 3e38
    magnitude = 10.0 ** rng.uniform(-38, np.log10(min(largest, 3e38)))
    values = (unit * magnitude).astype(dtype)
    known = np.ones(time, bool)
    pattern = rng.choice(["none", "none", "ends", "scattered", "block", "all but one"])
    start, stop = np.sort(rng.integers(0, time + 1, 2))
    if pattern == "ends":
        known[:start], known[stop:] = False, False
    elif pattern == "scattered":
        known = rng.random(time) > 0.4
    elif pattern == "block":
        known[start:stop] = False
    elif pattern == "all but one":
        known[:] = False
    if not known.any():
        known[rng.integers(time)] = True
    values[~known] = np.nan
    return values


def draw_shape(rng: np.random.Generator, time: int) -> np.ndarray:
    """Return a series of order one."""
    steps = np.arange(time)
    shapes = {
        "noise": rng.normal(size=time),
        "walk": np.cumsum(rng.normal(size=time)),
        "sine": np.sin(steps / rng.uniform(1, 99)),
        "constant": np.full(time, rng.normal()),
        "step": (steps > time // 2) + 1e-7 * rng.normal(size=time),
        "spike": rng.exponential(size=time) ** 9,
        "level": 1e5 + rng.normal(size=time),
    }
    return shapes[rng.choice(list(shapes))]


def largest_difference(encoder: Encoder, cases: list[np.ndarray]) -> float:
    """Return the largest change of a feature by the other cases of a batch, relative to the largest of its case (or 1).

    Features are finite, and 64 bits change none.

    The input is not changed.
    """
    before = [case.tobytes() for case in cases]
    features = encoder.embed(cases, batch_size=64)
    assert np.isfinite(features).all()
    with jax.enable_x64(True):
        np.testing.assert_array_equal(encoder.embed(cases, batch_size=64), features)
    order = np.random.default_rng(len(cases)).permutation(len(cases))
    moved = encoder.embed([cases[i] for i in order], batch_size=16)
    assert [case.tobytes() for case in cases] == before
    return relative_difference(moved, features[order])


def relative_difference(features: np.ndarray, others: np.ndarray) -> float:
    """Return the largest difference of a feature, relative to the largest feature of its case (or 1)."""
    return float((np.abs(features - others).max(1) / np.maximum(np.abs(others).max(1), 1)).max())
