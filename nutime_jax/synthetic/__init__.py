"""Synthetic series without end, keyed and pure: whoever has no data pretrains on these, drawn on the device."""

from nutime_jax.synthetic.series import synthetic_series

__all__ = ["synthetic_series"]
