"""Writes excerpts.npz from the float64 reference: python -m tests.golden.make, in the project's root."""

from pathlib import Path

import numpy as np

from tests import reference

PATH = Path(__file__).parent / "excerpts.npz"
SCALES = 10.0 ** np.arange(-4, 5)


def excerpts() -> dict[str, np.ndarray]:
    """Inputs are float32 numbers, outputs float64."""
    rng = np.random.default_rng(20231016)

    def draw(*shape, scale=1.0):
        return (scale * rng.uniform(-1, 1, shape)).astype(np.float32)

    out = {}
    series = np.cumsum(rng.normal(size=(6, 96)), axis=-1) * 10.0 ** np.arange(-3, 3)[:, None] + 7
    out["windows/x"] = series.astype(np.float32)
    out["windows/shape"], out["windows/mean"], out["windows/std"] = reference.windows(out["windows/x"].astype(np.float64), 16)
    scalars = np.concatenate([[0.0], *(s * 10.0 ** rng.uniform(-6, 8, 20) for s in (1, -1))]).astype(np.float32)
    out["nme/x"], out["nme/weight"], out["nme/bias"] = scalars, draw(9, 32), draw(9, 32)
    nme = [out[f"nme/{name}"].astype(np.float64) for name in ("x", "weight", "bias")]
    out["nme/weighted"] = reference.embed_scalar(*nme, SCALES)
    out["nme/unweighted"] = reference.embed_scalar(*nme, SCALES, weighted=False)
    for length, size in ((1, 8), (7, 32), (100, 64), (33, 33)):
        x = draw(length)
        out[f"resize_{size}/x_{length}"], out[f"resize_{size}/y_{length}"] = x, reference.resize(x.astype(np.float64), size)
    return out


if __name__ == "__main__":
    np.savez_compressed(PATH, **excerpts())
