"""The JAX backend of this process: 32-bit arrays, forks, and platforms that are absent."""

import contextlib
import os
from collections.abc import Iterator

import jax
from jax._src import xla_bridge  # the only test of a running backend that does not start one

from nutime_jax.errors import InputError, first_line

_running = False
"""Whether the backend was running at the last fork."""
_forked = False
"""Whether this process is a fork of one whose backend was running."""


@contextlib.contextmanager
def use_backend() -> Iterator[None]:
    """Start the backend, and make arrays of 32 bits whatever JAX_ENABLE_X64 says; also a decorator.

    Raises:
        InputError: JAX_PLATFORMS names a platform that JAX does not find, or the process is a fork of one that computes.
    """
    if _forked:
        raise InputError(
            "this process is a fork of one that has used JAX, whose threads a fork does not have; start workers with joblib's loky, "
            "with threads, or with multiprocessing.get_context('spawn')"
        )
    try:
        jax.local_devices()
    except RuntimeError as error:
        if not (platforms := jax.config.jax_platforms):
            raise
        reason = f"JAX_PLATFORMS is {platforms!r}, and JAX cannot start it ({first_line(error)})"
        raise InputError(f"{reason}; unset JAX_PLATFORMS, choose cpu, or install JAX for the accelerator") from error
    with arrays_of_32_bits():
        yield


@contextlib.contextmanager
def arrays_of_32_bits() -> Iterator[None]:
    """Make JAX's arrays of 32 bits, without starting the backend; also a decorator."""
    with jax.enable_x64(False):
        yield


def _before_fork() -> None:
    global _running
    _running = xla_bridge.backends_are_initialized()  # waits for a lock, which nobody would release in the child


def _after_fork() -> None:
    global _forked
    _forked = _running


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
