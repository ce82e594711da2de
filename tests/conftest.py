"""Test environment: two fake CPU devices, quick compilation, one compilation cache, runtime type checks and no network.

The stages: `pytest -n auto` (default), `pytest -n auto -m slow`, `pytest -n auto -m thorough`. Markers are listed in setup.cfg.
"""

import contextlib
import gc
import io
import os
import socket
from http.server import HTTPServer
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("NUTIME_TEST_DEVICES", "2")
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.environ['NUTIME_TEST_DEVICES']}"
# Behaviour is tested, not speed: compilation without optimisation takes half the time. Subprocesses inherit it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import pytest
from filelock import FileLock

DEVICES = int(os.environ["NUTIME_TEST_DEVICES"])
"""Fake devices of this process; tests/parallel needs 8, and runs in a process of its own (tests/contract/test_parallel.py)."""

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
FIRST = [
    ROOT / "tests" / name
    for name in (
        "e2e/test_smoke.py",
        "golden/test_published.py",
        "unit/test_objectives.py",
        "unit/test_finetune.py",
        "unit/test_synthetic.py",
        "unit/test_sweep.py",
    )
]
"""Files that take longest begin first, so that no worker is left with one. The first trains the smoke run, for which other
workers would wait; the second compiles with optimisation, after which compiled functions are forgotten."""


def pytest_configure(config):
    """Set up JAX, except in the process that hands tests out to workers: it need not wait for imports."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None and config.getoption("numprocesses", None):
        return
    from tests.environment import delete_old_entries

    if worker in (None, "gw0"):
        delete_old_entries()


def pytest_collection_modifyitems(items):
    """Sort the files of FIRST to the front."""
    items.sort(key=lambda item: FIRST.index(item.path) if item.path in FIRST else len(FIRST))


def pytest_collection_finish():
    """Leave modules and tests out of garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Compile with optimisation for tests marked `optimised`, without for all others. Fixtures come after this."""
    quick = item.get_closest_marker("optimised") is None
    import jax

    if jax.config.read("jax_disable_most_optimizations") != quick:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quick))
        jax.config.update("jax_disable_most_optimizations", quick)
        jax.clear_caches()  # the setting is not part of the keys of compiled functions


SMOKE_RUN = ["--config.model.depth=1", "--config.steps=12"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Refuse connections that leave this machine: no test may need an address outside it."""
    connect = socket.socket.connect

    def connect_locally(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test connects to {address[0]}; tests must not leave this machine")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    """The workdir of one trained smoke run: one block, 12 steps with a profile, made once per test run and shared by all workers.

    `smoke_run.out` and `smoke_run.err` beside it have what the command printed. Tests read it, or change a copy.
    """
    from nutime_jax.cli.main import main

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    workdir = folder / "smoke_run"
    with FileLock(f"{workdir}.lock"):
        if not (folder / "smoke_run.err").exists():
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                assert main(["pretrain", "--config=smoke", f"--workdir={workdir}", "--profile", *SMOKE_RUN]) == 0
            (folder / "smoke_run.out").write_text(out.getvalue())
            (folder / "smoke_run.err").write_text(err.getvalue())
    return workdir


@pytest.fixture(scope="session")
def golden() -> Path:
    """Arrays computed with the official implementation, kept outside the project."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("the arrays of the official implementation are not on this machine")
    return SHARED / "golden"


class _ManyClientsServer(HTTPServer):
    """A server for the many connections of Orbax, some of which are closed early: with a short queue each would wait for seconds."""

    request_queue_size = 256

    def handle_error(self, request, client_address) -> None:
        pass


def _send_generations(patch: pytest.MonkeyPatch) -> None:
    """Send the generation of an object with its content, as Cloud Storage does: TensorStore writes on the condition of it."""
    from gcp_storage_emulator.handlers import objects

    download = objects.download

    def download_with_generation(request, response, storage, *args, **kwargs):
        with contextlib.suppress(objects.NotFound):
            file = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
            response["x-goog-generation"] = file["generation"]
        return download(request, response, storage, *args, **kwargs)

    patch.setattr(objects, "download", download_with_generation)


@pytest.fixture(scope="session")
def bucket() -> str:
    """The address of an empty bucket, which an emulator keeps in memory, for this process and those that it starts."""
    reason = "pip install gcsfs gcp-storage-emulator to test workdirs in a bucket"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
            patch.setenv(name, f"http://127.0.0.1:{port}")
        # The emulator needs no credentials, and has no service for the type of a bucket; gcsfs would wait for both.
        patch.setenv("FSSPEC_GCS_TOKEN", "anon")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        patch.setitem(pytest.importorskip("fsspec.config", reason=reason).conf, "gcs", {"token": "anon"})
        pytest.importorskip("gcsfs", reason=reason)
        pytest.importorskip("gcp_storage_emulator", reason=reason)
        _send_generations(patch)  # before the server takes the functions
        emulator = pytest.importorskip("gcp_storage_emulator.server", reason=reason)
        patch.setattr(emulator.server, "HTTPServer", _ManyClientsServer)
        with emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket"):
            yield "gs://bucket"


@pytest.fixture
def x64():
    """Float64 for the length of a test."""
    import jax

    with jax.enable_x64(True):
        yield
