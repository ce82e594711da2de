"""The library against the project's own float64 reference, by arrays that are kept in the repository."""

import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.core.resample import resize
from nutime_jax.core.scalars import embed_scalar
from nutime_jax.core.windows import normalise_windows
from tests.golden.make import PATH, SCALES, excerpts

TOLERANCE = 1e-5  # of each array's largest magnitude, in float32


@pytest.fixture(scope="module")
def kept():
    with np.load(PATH, allow_pickle=False) as file:
        return dict(file)


def assert_close(ours, theirs):
    assert np.abs(np.asarray(ours, np.float64) - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def test_the_reference_still_makes_them(kept):
    made = excerpts()
    assert made.keys() == kept.keys()
    for name, array in kept.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-12, atol=1e-12, err_msg=name)


def test_windows(kept):
    for part, ours in zip(("shape", "mean", "std"), normalise_windows(jnp.asarray(kept["windows/x"]), window=16), strict=True):
        for row, expected in zip(ours, kept[f"windows/{part}"], strict=True):  # a row a magnitude
            assert_close(row, expected)


@pytest.mark.parametrize("form", ["weighted", "unweighted"])
def test_nme(kept, form):
    x, weight, bias = (jnp.asarray(kept[f"nme/{name}"]) for name in ("x", "weight", "bias"))
    assert_close(embed_scalar(x, weight, bias, jnp.float32(SCALES), weighted=form == "weighted"), kept[f"nme/{form}"])


def test_resize(kept):
    names = [name for name in kept if "/x_" in name]
    assert len(names) == 4
    for name in names:
        size = int(name.split("/")[0].removeprefix("resize_"))
        assert_close(resize(jnp.asarray(kept[name]), size), kept[name.replace("/x_", "/y_")])
