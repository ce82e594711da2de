"""Compiled programs are kept between processes, so that the second start is quick."""

import hashlib
import os
import platform
from pathlib import Path

import jax


def keep_compiled() -> None:
    """Keeps compiled programs in the user's cache folder, unless the user has chosen a folder, or it cannot be written.

    JAX's own setting, JAX_COMPILATION_CACHE_DIR or `jax_compilation_cache_dir`, comes first. What is compiled for one
    processor is not for another, which may share the home: each has a folder.
    """
    if jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache:
        return
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "nutime_jax" / f"jax-{jax.__version__}-{_processor()}"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            return
    except (OSError, RuntimeError):  # no home, or not one's own
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Of the small programs there are many, and they take most of the time of a start.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> str:
    """Few letters that differ where the instructions of processors do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
