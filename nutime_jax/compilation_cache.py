"""The persistent compilation cache: compiled functions on disk, so that the second start is quick."""

import hashlib
import os
import platform
from pathlib import Path

import jax

from nutime_jax.storage import open_atomically


def enable_compilation_cache() -> None:
    """Store compiled functions in `default_cache_dir()`.

    A directory that the user has chosen (JAX_COMPILATION_CACHE_DIR or `jax_compilation_cache_dir`) stays. Without a
    writable directory nothing is stored.
    """
    if jax.config.jax_compilation_cache_dir is None and jax.config.jax_enable_compilation_cache:
        try:
            directory = default_cache_dir()
            directory.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError):  # no home directory, or one of another user
            return
        if not os.access(directory, os.W_OK | os.X_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(directory))
        # The many small functions take most of the time of a start.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    write_entries_atomically()


def default_cache_dir() -> Path:
    """Return the cache directory of this user, JAX version and processor.

    Code that is compiled for one processor does not run on every other one that shares the home directory.

    Raises:
        RuntimeError: the user has no home directory.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nutime_jax" / f"jax-{jax.__version__}-{_processor()}"


def write_entries_atomically() -> None:
    """Make JAX write each cache entry to a temporary file, then rename it.

    JAX opens the entry itself and writes into it. A second process that reads it meanwhile warns and compiles again; an
    entry that a kill left incomplete is never replaced. Applies to local directories without a size limit.
    """
    try:
        from jax._src.lru_cache import LRUCache  # not public; a JAX without it writes in its own way
    except ImportError:
        return
    put = LRUCache.put
    if getattr(put, "atomic", False):
        return

    def put_atomically(self, key: str, value: bytes) -> None:
        path = Path(str(self.path)) / f"{key}-cache"
        if self.eviction_enabled or not path.parent.is_dir():
            put(self, key, value)
        elif not path.exists():
            with open_atomically(path) as file:
                file.write(value)

    put_atomically.atomic = True
    LRUCache.put = put_atomically


def _processor() -> str:
    """Return a short string that differs where the instruction sets of processors do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
