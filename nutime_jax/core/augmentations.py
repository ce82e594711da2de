"""Random augmentations of a view: pure functions of a key, applied after crop and resize (`views`).

Each takes (key, series, strength) and keeps the length. Strength 0 changes nothing. A "fraction up to the strength" is
uniform between 0 and the strength, and sampled for each view. Results do not depend on the scale of the series:
`make_augmentation` divides values by the largest magnitude first, so series of any scale are accepted.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from nutime_jax.errors import InputError

Augmentation = Callable[[Key[Array, ""], Float[Array, " time"]], Float[Array, " time"]]
BLOCK = 16
"""Time points of a block that is masked as a unit."""
KNOTS = 6
"""Number of knots of smooth random curves."""
SLICE = 0.25
"""Fraction of the series that `slice_warp` stretches or compresses."""


def jitter(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Add white noise; its std is a fraction, up to the strength, of the std of the series."""
    fraction_key, noise_key = jax.random.split(key)
    return x + _fraction(fraction_key, strength) * x.std() * jax.random.normal(noise_key, x.shape, x.dtype)


def scale(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Multiply by 10**(strength * z), z standard normal; the strength is in log10 units."""
    return x * 10 ** (strength * jax.random.normal(key, (), x.dtype))


def level_shift(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Add strength * z standard deviations of the series, z standard normal."""
    return x + strength * x.std() * jax.random.normal(key, (), x.dtype)


def vertical_flip(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Mirror the series about its mean; the strength is the probability."""
    return jnp.where(jax.random.bernoulli(key, strength), 2 * x.mean() - x, x)


def magnitude_warp(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Multiply deviations from the mean by a smooth curve, 10**(strength * z) at its knots."""
    curve = _curve(strength * jax.random.normal(key, (KNOTS,), x.dtype), len(x))
    return x.mean() + (x - x.mean()) * 10**curve


def time_warp(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Resample the series at a smoothly changing speed, 10**(strength * z) at its knots; both ends stay."""
    speed = 10 ** _curve(strength * jax.random.normal(key, (KNOTS,), x.dtype), len(x) - 1)
    return x if strength == 0 else _at_speed(x, speed)


def slice_warp(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Resample a random quarter of the series at the speed 10**(strength * z), z standard normal; both ends stay.

    Source: window warping, Le Guennec et al., 2016.
    """
    speed_key, start_key = jax.random.split(key)
    start = jax.random.uniform(start_key, maxval=(1 - SLICE) * (len(x) - 1))
    time = jnp.arange(len(x) - 1)
    inside = (time >= start) & (time < start + SLICE * (len(x) - 1))
    speed = 10 ** jnp.where(inside, strength * jax.random.normal(speed_key, (), x.dtype), 0)
    return x if strength == 0 else _at_speed(x, speed)


def time_reversal(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Reverse the series in time; the strength is the probability."""
    return jnp.where(jax.random.bernoulli(key, strength), x[::-1], x)


def cutout(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Replace one segment, a fraction of the series up to the strength, by the mean."""
    fraction_key, start_key = jax.random.split(key)
    size = _fraction(fraction_key, strength) * len(x)
    start = jnp.floor(jax.random.uniform(start_key, maxval=len(x) - size))
    time = jnp.arange(len(x))
    return jnp.where((time >= start) & (time < start + size), x.mean(), x)


def mask_blocks(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Replace each block of BLOCK time points by the mean, with a probability up to the strength."""
    fraction_key, block_key = jax.random.split(key)
    masked = jax.random.uniform(block_key, (-(-len(x) // BLOCK),)) < _fraction(fraction_key, strength)
    return jnp.where(jnp.repeat(masked, BLOCK)[: len(x)], x.mean(), x)


def frequency_mask(key: Key[Array, ""], x: Float[Array, " time"], strength: float) -> Float[Array, " time"]:
    """Remove each frequency except the mean, with a probability up to the strength."""
    fraction_key, frequency_key = jax.random.split(key)
    spectrum = jnp.fft.rfft(x)
    masked = jax.random.uniform(frequency_key, spectrum.shape) < _fraction(fraction_key, strength)
    masked = masked & (jnp.arange(len(spectrum)) > 0)
    return x - jnp.fft.irfft(jnp.where(masked, spectrum, 0), len(x)).astype(x.dtype)


AUGMENTATIONS: dict[str, Callable[[Key[Array, ""], Float[Array, " time"], float], Float[Array, " time"]]] = {
    augmentation.__name__: augmentation
    for augmentation in (
        jitter,
        scale,
        level_shift,
        vertical_flip,
        magnitude_warp,
        time_warp,
        slice_warp,
        time_reversal,
        cutout,
        mask_blocks,
        frequency_mask,
    )
}
"""Name in `augment.transforms` -> augmentation."""
UNIT_STRENGTH = ("vertical_flip", "time_reversal", "cutout", "mask_blocks", "frequency_mask")
"""Augmentations whose strength is a probability or a fraction, at most 1."""


def make_augmentation(names: Sequence[str]) -> Augmentation:
    """Return augmentations applied in order, each with its own key.

    Args:
        names: entries "name=strength" of `augment.transforms`.

    Raises:
        InputError: a name is unknown, or a strength is not a number of 0 or more (at most 1 for probabilities and fractions).
    """
    transforms = []
    for entry in names:
        name, _, text = entry.partition("=")
        if name not in AUGMENTATIONS:
            raise InputError(f"augment.transforms has {entry!r}; write name=strength, with one of {', '.join(AUGMENTATIONS)}")
        strength = _parse_strength(entry, text, high=1.0 if name in UNIT_STRENGTH else float("inf"))
        transforms.append((AUGMENTATIONS[name], strength))

    def augment(key: Key[Array, ""], x: Float[Array, " time"]) -> Float[Array, " time"]:
        limits = jnp.finfo(x.dtype)
        unit, largest = jnp.maximum(jnp.abs(x).max(), limits.tiny), 0.999 * limits.max
        x = x / unit
        for i, (transform, strength) in enumerate(transforms):
            x = transform(jax.random.fold_in(key, i), x, strength)
        return jnp.clip(x, -largest / unit, largest / unit) * unit

    return augment


def _parse_strength(entry: str, text: str, *, high: float) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = -1.0
    if not (0 <= strength <= high and strength < float("inf")):
        accepted = "from 0 to 1" if high == 1 else "of 0 or more"
        raise InputError(f"augment.transforms has {entry!r}; choose a strength {accepted}")
    return strength


def _fraction(key: Key[Array, ""], high: float) -> Float[Array, ""]:
    return jax.random.uniform(key, maxval=high)


def _curve(knots: Float[Array, " knots"], size: int) -> Float[Array, " {size}"]:
    """Interpolate knots by half cosines."""
    position = jnp.linspace(0, len(knots) - 1, size)
    left = jnp.minimum(position.astype(jnp.int32), len(knots) - 2)
    fraction = (1 - jnp.cos(jnp.pi * (position - left))) / 2
    return knots[left] + fraction * (knots[left + 1] - knots[left])


def _at_speed(x: Float[Array, " time"], speed: Float[Array, " time-1"]) -> Float[Array, " time"]:
    """Resample the series at a speed per time step; both ends stay."""
    distance = jnp.concatenate([jnp.zeros(1, x.dtype), jnp.cumsum(speed)])
    time = distance / jnp.maximum(distance[-1], jnp.finfo(x.dtype).tiny) * (len(x) - 1)
    return _at(x, time)


def _at(x: Float[Array, " time"], time: Float[Array, " time"]) -> Float[Array, " time"]:
    """Interpolate the series linearly at fractional times."""
    left = jnp.clip(time.astype(jnp.int32), 0, max(len(x) - 2, 0))
    right = jnp.minimum(left + 1, len(x) - 1)
    return x[left] + (time - left) * (x[right] - x[left])
