"""JAX, hypothesis and runtime type checks as tests need them: set by import, in every process that runs tests."""

import contextlib
import os
import time
from pathlib import Path

import jax
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from nutime_jax.compilation_cache import default_cache_dir, write_entries_atomically

TYPED = [
    "nutime_jax.core.views",
    "nutime_jax.core.augmentations",
    "nutime_jax.data.inspection",
    "nutime_jax.data.point_anomaly",
    "nutime_jax.data.series",
    "nutime_jax.evaluation.protocols.fewshot",
    "nutime_jax.evaluation.classifiers",
    "nutime_jax.evaluation.protocols.point_anomaly",
    "nutime_jax.models",
    "nutime_jax.core.scalars",
    "nutime_jax.objectives",
    "nutime_jax.core.resample",
    "nutime_jax.synthetic",
    "nutime_jax.core.masking",
    "nutime_jax.core.windows",
]
install_import_hook(TYPED, "beartype.beartype")

# One cache for all workers, all test runs, and the processes that tests start.
CACHE = Path(os.environ.get("NUTIME_TEST_CACHE") or default_cache_dir() / "tests")
CACHE_DAYS = 14
"""Age at which entries are deleted when a test run starts, so that the cache does not grow for ever."""
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["NUMBA_CACHE_DIR"] = str(CACHE / "numba")  # of the ROCKETs of aeon
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
write_entries_atomically()
settings.register_profile("project", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def delete_old_entries() -> None:
    """Delete old entries of the compilation cache."""
    oldest = time.time() - CACHE_DAYS * 24 * 3600
    for entry in CACHE.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another test run deletes, too
            if entry.stat().st_mtime < oldest:
                entry.unlink()
