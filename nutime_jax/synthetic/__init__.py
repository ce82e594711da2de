"""Synthetic series for pretraining without data, sampled on the device."""

from nutime_jax.synthetic.series import synthetic_series

__all__ = ["synthetic_series"]
