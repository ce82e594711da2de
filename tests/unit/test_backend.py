"""The process around an encoder: 32 bits under JAX_ENABLE_X64, forks, absent platforms, logging, threads."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from sklearn.base import clone

from nutime_jax.config import TuningSettings, load_config
from nutime_jax.data.datasets import Cases
from nutime_jax.distributed import backend, mesh
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.estimators import NuTimeTransformer
from nutime_jax.finetuning.loop import fine_tune
from nutime_jax.loading import load_encoder
from nutime_jax.training.checkpoints import read_arrays
from nutime_jax.training.loop import pretrain
from tests.encoders import smoke_encoder

X = np.random.default_rng(0).normal(size=(6, 70))
QUICK = TuningSettings(head_norm="none", epochs=2, batch_size=8, learning_rates=(1e-3,), patience=0)


def test_64_bits_change_nothing(tmp_path, x64):
    encoder = smoke_encoder()
    assert jax.numpy.ones(1).dtype == np.float64
    loaded = load_encoder(encoder.save(tmp_path / "a"))
    found = loaded.embed(X)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(found, encoder.embed(X))


RUN = """
import logging, shutil, sys
import jax
import nutime_jax
from nutime_jax.config import load_config
names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
settings = [getattr(jax.config, name) for name in names]
nutime_jax.load_encoder("nutime-small")
import nutime_jax.training.loop
assert logging.root.handlers == []
assert settings == [getattr(jax.config, name) for name in names]
config = load_config("smoke", sys.argv[2:])
nutime_jax.pretrain(config, sys.argv[1])
shutil.rmtree(sys.argv[1] + "/checkpoints/00000004")
nutime_jax.pretrain(config, sys.argv[1])
assert logging.root.handlers == []
"""
CHANGES = ["model.depth=1", "steps=4", "run.checkpoint_every=2", "optim.warmup_steps=1", "run.probe_every=0", "data.synthetic_fraction=1"]


def python(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_resumed_run_under_64_bits_is_one_under_32(tmp_path):
    """In a process of its own, which also keeps its logging and its compilation cache."""
    status, _, err = python(RUN, tmp_path / "64", *CHANGES, JAX_ENABLE_X64="1")
    assert status == 0, err
    state = pretrain(load_config("smoke", CHANGES), tmp_path / "32")
    names = ("params", "variables", "opt_state")
    found = read_arrays(tmp_path / "64/checkpoints/00000004", names)
    jax.tree.map(np.testing.assert_array_equal, found["params"], jax.tree.map(np.asarray, state.params))
    assert np.float64 not in {leaf.dtype for leaf in jax.tree.leaves(found)}
    assert load_encoder(tmp_path / "64").embed(X).shape == (6, 32)


FORK = """
import os, signal, sys, warnings
import numpy as np
import nutime_jax
warnings.simplefilter("ignore")
encoder = nutime_jax.load_encoder("nutime-small").with_options(num_window_offsets=1)

def child():
    signal.alarm(60)
    try:
        return encoder.embed(np.ones((1, 20))).shape[0]
    except nutime_jax.InputError as error:
        print(error, flush=True)

for used in (False, True):
    if used:
        encoder.embed(np.ones((1, 20)))
    if (pid := os.fork()) == 0:
        os._exit(child() or 3)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.slow
def test_a_fork_of_a_process_that_computes_says_what_to_use():
    status, out, err = python(FORK)
    assert status == 0, err
    first, message, second = out.splitlines()
    assert (first, second) == ("1", "3")  # a fork of a process that has only loaded an encoder computes
    assert message.startswith("this process is a fork of one that has used JAX")
    assert "loky" in message


def test_a_fork_is_rejected_at_every_entry(monkeypatch, tmp_path):
    encoder = smoke_encoder()
    monkeypatch.setattr(backend, "_forked", True)
    train = Cases(list(np.float32(X[:, None])), np.array(["a", "b"] * 3))
    for call in (lambda: encoder.embed(X), lambda: next(encoder.embed(iter(X))), lambda: fine_tune(encoder, train, settings=QUICK)):
        with pytest.raises(InputError, match=r"fork of one that has used JAX, .*; start workers with joblib's loky"):
            call()


def test_an_absent_platform_is_named(monkeypatch):
    def local_devices():
        raise RuntimeError("Unable to initialize backend 'cuda':\nno device (set JAX_PLATFORMS='' to choose one)")

    monkeypatch.setattr(jax, "local_devices", local_devices)
    message = r"JAX_PLATFORMS is 'cpu', and JAX cannot start it \(Unable to initialize backend 'cuda': no device .*\); unset JAX_PLATFORMS"
    with pytest.raises(InputError, match=message):
        smoke_encoder().embed(X)


@pytest.mark.slow
def test_a_command_without_its_platform_ends_in_one_line(tmp_path):
    command = ["embed", "--encoder=nutime-small", "--data=GunPoint", "--split=train", f"--out={tmp_path / 'a.npy'}"]
    code = "import sys; from nutime_jax.cli.main import main; sys.exit(main())"
    status, _, err = python(code, *command, JAX_PLATFORMS="gpu")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("nutime: JAX_PLATFORMS is 'gpu', and JAX cannot start it")


# ---- Encoders as values


def test_encoders_compare_by_settings_and_weights():
    encoder = smoke_encoder()
    again = pickle.loads(pickle.dumps(encoder))
    assert (again == encoder, hash(again) == hash(encoder), again in {encoder}) == (True, True, True)
    arrays = jax.tree.map(np.array, encoder.variables)
    arrays["params"]["cls"][:] = 1
    others = [
        Encoder(encoder.config, arrays),
        encoder.with_options(diff_orders=(0, 1)),
        encoder.with_options(num_window_offsets=2),
        "smoke",
    ]
    assert [other == encoder for other in others] == [False] * 4


def test_weights_are_placed_once(monkeypatch):
    """By threads that begin together, derived encoders, and clones of estimators."""
    encoder, meshes = Encoder(smoke_encoder().config, smoke_encoder().variables), []
    monkeypatch.setattr("nutime_jax.embedding.make_local_mesh", lambda: meshes.append(0) or mesh.make_local_mesh())
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        encoder.embed(X)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    encoder.with_options(diff_orders=(0, 1)).embed(X)
    copy.deepcopy(encoder).embed(X)
    clone(NuTimeTransformer(encoder)).fit(X).transform(X)
    assert len(meshes) == 1
