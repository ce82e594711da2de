"""Every test runs on eight fake devices, with types checked, and without implicit rank promotion."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"

import socket
import tempfile
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

TYPED = [
    "nutime_jax.augment",
    "nutime_jax.distortions",
    "nutime_jax.data.inspection",
    "nutime_jax.data.monitored",
    "nutime_jax.data.series",
    "nutime_jax.evaluation.fewshot",
    "nutime_jax.evaluation.folds",
    "nutime_jax.evaluation.logistic",
    "nutime_jax.evaluation.monitoring",
    "nutime_jax.evaluation.neighbours",
    "nutime_jax.evaluation.ridge",
    "nutime_jax.models",
    "nutime_jax.nme",
    "nutime_jax.objectives",
    "nutime_jax.resample",
    "nutime_jax.scalar_features",
    "nutime_jax.synthetic",
    "nutime_jax.token_masks",
    "nutime_jax.windows",
]
install_import_hook(TYPED, "beartype.beartype")

# The same small programs are compiled over and over: once a session is enough.
COMPILATIONS = tempfile.TemporaryDirectory()
jax.config.update("jax_compilation_cache_dir", COMPILATIONS.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.register_profile("project", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Arrays computed with the published implementation, kept outside the project."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the arrays of the published implementation are not on this machine")
    return SHARED / "golden"


@pytest.fixture(scope="session")
def bucket() -> str:
    """The address of an empty bucket, which an emulator keeps in memory, for this process and those that it starts."""
    reason = "pip install gcsfs gcp-storage-emulator to test workdirs in a bucket"
    pytest.importorskip("gcsfs", reason=reason)
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason=reason)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        with emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket"):
            yield "gs://bucket"


@pytest.fixture
def x64():
    """Float64 for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def quick_compilations():
    """What is tested is behaviour, not speed: programs of seconds need no optimisation that takes longer."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
