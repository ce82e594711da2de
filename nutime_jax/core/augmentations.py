"""Random augmentations of a view, keyed and pure; a view is cropped and resized first (`augment`).

Each takes (key, series, strength) and keeps the length. At strength 0 it changes nothing; "a share up to the strength" is uniform
between 0 and the strength, and drawn anew for every view. Nothing depends on the scale of the series, so that values may be of any:
`make_augmentation` hands them over as shares of the largest.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.errors import InputError

Augmentation = Callable[[Key[Array, ""], Float[Array, " time"]], Float[Array, " time"]]
BLOCK = 16
"""Points that are masked together."""
KNOTS = 6
"""Places between which smooth random curves are interpolated."""


def jitter(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Adds white noise; its standard deviation is a share, up to the strength, of that of the series."""
    share_key, noise_key = jax.random.split(key)
    return x + _share(share_key, strength) * x.std() * jax.random.normal(noise_key, x.shape, x.dtype)


def scale(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Multiplies by 10**(strength * z), z standard normal: the strength is in decades."""
    return x * 10 ** (strength * jax.random.normal(key, (), x.dtype))


def level_shift(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Adds a constant, strength * z standard deviations of the series, z standard normal."""
    return x + strength * x.std() * jax.random.normal(key, (), x.dtype)


def vertical_flip(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Turns the series upside down about its mean, with the strength as probability."""
    return jnp.where(jax.random.bernoulli(key, strength), 2 * x.mean() - x, x)


def magnitude_warp(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Multiplies what deviates from the mean by a smooth curve around 1, 10**(strength * z) at its knots."""
    curve = _curve(strength * jax.random.normal(key, (KNOTS,), x.dtype), len(x))
    return x.mean() + (x - x.mean()) * 10**curve


def time_warp(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Runs through the series at a smoothly changing speed, 10**(strength * z) at its knots; first and last point stay."""
    speed = 10 ** _curve(strength * jax.random.normal(key, (KNOTS,), x.dtype), len(x) - 1)
    passed = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(speed)])
    place = passed / jnp.maximum(passed[-1], jnp.finfo(x.dtype).tiny) * (len(x) - 1)
    return _at(x, jnp.arange(len(x), dtype=x.dtype) if strength == 0 else place)


def cutout(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Replaces one stretch, of a share up to the strength, by the mean."""
    share_key, start_key = jax.random.split(key)
    size = _share(share_key, strength) * len(x)
    start = jnp.floor(jax.random.uniform(start_key, maxval=len(x) - size))
    place = jnp.arange(len(x))
    return jnp.where((place >= start) & (place < start + size), x.mean(), x)


def mask_blocks(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Replaces each stretch of BLOCK points by the mean, with a share up to the strength as probability."""
    share_key, block_key = jax.random.split(key)
    hidden = jax.random.uniform(block_key, (-(-len(x) // BLOCK),)) < _share(share_key, strength)
    return jnp.where(jnp.repeat(hidden, BLOCK)[: len(x)], x.mean(), x)


def frequency_mask(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Takes out each frequency but the mean, with a share up to the strength as probability."""
    share_key, place_key = jax.random.split(key)
    waves = jnp.fft.rfft(x)
    hidden = (jax.random.uniform(place_key, waves.shape) < _share(share_key, strength)) & (jnp.arange(len(waves)) > 0)
    return x - jnp.fft.irfft(jnp.where(hidden, waves, 0), len(x)).astype(x.dtype)


AUGMENTATIONS: dict[str, Callable[[Key[Array, ""], Float[Array, " time"], float], Float[Array, " time"]]] = {
    one.__name__: one for one in (jitter, scale, level_shift, vertical_flip, magnitude_warp, time_warp, cutout, mask_blocks, frequency_mask)
}
"""By the name that a configuration has for it."""


def make_augmentation(names: Sequence[str]) -> Augmentation:
    """Augmentations one after the other, from entries "name=strength", each with a key of its own.

    Raises:
        InputError: an unknown name, or a strength that is no number from 0 up; probabilities and shares end at 1.
    """
    parts = []
    for entry in names:
        name, _, text = entry.partition("=")
        if name not in AUGMENTATIONS:
            raise InputError(f"augment.transforms has {entry!r}; write name=strength, with one of {', '.join(AUGMENTATIONS)}")
        parts.append((AUGMENTATIONS[name], _strength(entry, text, most=1.0 if name in ENDING_AT_ONE else float("inf"))))

    def augment(key: Key[Array, ""], x: Float[Array, " time"]) -> Float[Array, " time"]:
        limits = jnp.finfo(x.dtype)
        unit, most = jnp.maximum(jnp.abs(x).max(), limits.tiny), 0.999 * limits.max
        x = x / unit
        for number, (one, strength) in enumerate(parts):
            x = one(jax.random.fold_in(key, number), x, strength)
        return jnp.clip(x, -most / unit, most / unit) * unit

    return augment


ENDING_AT_ONE = ("vertical_flip", "cutout", "mask_blocks", "frequency_mask")
"""Those whose strength is a probability or a share."""


def _strength(entry: str, text: str, *, most: float) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = -1.0
    if not (0 <= strength <= most and strength < float("inf")):
        raise InputError(f"augment.transforms has {entry!r}; its strength is a number from 0{' to 1' if most == 1 else ' up'}")
    return strength


def _share(key: Key[Array, ""], most: float) -> Float[Array, ""]:
    return jax.random.uniform(key, maxval=most)


def _curve(knots: Float[Array, " knots"], size: int) -> Float[Array, " {size}"]:
    """A curve through knots, interpolated by half cosines between them."""
    place = jnp.linspace(0, len(knots) - 1, size)
    left = jnp.minimum(place.astype(jnp.int32), len(knots) - 2)
    part = (1 - jnp.cos(jnp.pi * (place - left))) / 2
    return knots[left] + part * (knots[left + 1] - knots[left])


def _at(x: Float[Array, " time"], place: Float[Array, " time"]) -> Float[Array, " time"]:
    """Values at places between the points, interpolated linearly."""
    left = jnp.clip(place.astype(jnp.int32), 0, max(len(x) - 2, 0))
    right = jnp.minimum(left + 1, len(x) - 1)
    return x[left] + (place - left) * (x[right] - x[left])
