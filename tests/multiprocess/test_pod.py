"""Several processes run together: the fault-injection tests of benchmarks/faults.py, in the time of a test."""

import random
import signal
import sys

import numpy as np
import pytest

from benchmarks import faults
from launch.simulate_pod import Pod
from nutime_jax.config import load_config, override
from nutime_jax.training.loop import pretrain

# The published width of the projections: with few dimensions the normalised differences are ill-conditioned.
# So many checkpoints take seconds, in which a signal is heard, and few steps.
OVERRIDES = ("batch_size=16", "objective.output_dim=256", "steps=240", "run.log_every=1", "run.checkpoint_every=2")
STEPS = 20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    """Two processes of two devices, of which one is told to stop; then the identical command again."""
    folder = tmp_path_factory.mktemp("pod")
    command = faults.pretrain_command(folder / "run", *OVERRIDES)
    with Pod(command, processes=2, devices=2, logs=folder / "logs") as pod:
        pod.start()
        assert pod.wait_until(lambda: faults.newest(folder / "run") > 0, timeout=400), pod.tail(0)
        pod.kill(1, signum=signal.SIGTERM)
        assert pod.wait(timeout=400) == [faults.PREEMPTED] * 2, pod.tail(0)
        told, stopped_at = [pod.output(i) for i in range(2)], faults.newest(folder / "run")
        pod.start()
        assert pod.wait(timeout=400) == [0, 0], pod.tail(0)
        yield folder / "run", told, stopped_at, pod.output(0)


def test_all_processes_stop_after_the_same_step(pod):
    _, told, stopped_at, _ = pod
    for output in told:
        assert f"nutime: Received SIGTERM; saved a checkpoint at step {stopped_at}. Rerun the same command to resume." in output
        assert "Traceback" not in output


def test_the_run_goes_on_and_is_recorded_once(pod):
    workdir, _, stopped_at, output = pod
    assert f"resuming from {workdir}/checkpoints/{stopped_at:08d}" in output
    assert "4 cpu device(s) of 2 processes" in output
    assert [line["step"] for line in faults.metrics(workdir)] == list(range(1, 241))
    assert int(faults.final_state(workdir)["step"]) == 240


def test_one_process_has_the_same_losses(pod, tmp_path):
    config = load_config("smoke", [*OVERRIDES, "run.probe_every=0"])

    class EnoughError(Exception):
        pass

    def stop(state):
        raise EnoughError

    config = override(config, f"run.probe_every={STEPS}")
    with pytest.raises(EnoughError):
        pretrain(config, tmp_path, devices=1, probe=stop)
    alone = faults.losses(tmp_path)
    assert len(alone) == STEPS
    assert np.ptp(alone) > 1e-3
    np.testing.assert_allclose(faults.losses(pod[0])[:STEPS], alone, rtol=1e-6)


def test_a_process_that_never_comes_is_one_sentence(tmp_path):
    code = (
        "import sys; from nutime_jax.distributed import processes; processes.CONNECT_TIMEOUT_S = 3; "
        "from nutime_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    with Pod(
        [sys.executable, "-c", code, "pretrain", "--config=smoke", f"--workdir={tmp_path}"], processes=3, devices=1, logs=tmp_path
    ) as pod:
        pod.start().kill(1)
        assert pod.wait(timeout=100) == [4, -signal.SIGKILL, 4]
        for index in (0, 2):
            assert "not all processes have connected in 3 s; see their output, and rerun" in pod.output(index)
            assert "Check failure" not in pod.output(index)


def test_a_killed_run_ends_as_one_that_never_stopped(tmp_path):
    figures = faults.drill_kills(tmp_path, kills=3, steps=120, draw=random.Random())
    assert sum(figures["moments"].values()) == 3
    assert figures["resumed"]
    assert figures["identical"]
