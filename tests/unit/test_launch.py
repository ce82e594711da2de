"""What starts runs elsewhere: the pod on one machine, and scripts that are only ever talked to here."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.simulate_pod import Pod, main, parse_kill, total_status

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


SAY = "import os, sys; print(os.environ['NUTIME_PROCESS'], os.environ['NUTIME_PROCESSES'], os.environ['XLA_FLAGS'], sys.argv[-1])"
WAIT = "import time; print('ready', flush=True); time.sleep(60)"
# Ends with 75 when told to stop, as a run does; the file says that every process can be told.
STOP = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
pathlib.Path(sys.argv[1], os.environ["NUTIME_PROCESS"]).touch()
while len(os.listdir(sys.argv[1])) < int(os.environ["NUTIME_PROCESSES"]): time.sleep(0.01)
pathlib.Path(sys.argv[1], "all").touch()
signal.pause()
"""


def ready(pod: Pod):
    return lambda: all("ready" in pod.output(index) for index in range(pod.processes))


def test_every_process_is_told_who_it_is(tmp_path):
    with Pod(python(SAY), processes=2, devices=3, logs=tmp_path) as pod:
        assert pod.start().wait(timeout=20) == [0, 0]
        said = [pod.output(index).split() for index in range(2)]
        assert [one[:2] for one in said] == [["0", "2"], ["1", "2"]]
        assert all(one[-2].endswith("device_count=3") and one[-1].startswith("--multihost=localhost:") for one in said)
        assert said[0][-1] == said[1][-1]
        assert pod.start().wait(timeout=20) == [0, 0]
        assert pod.log(0).read_text().count("--multihost") == 2  # a log goes on
        assert pod.output(0).count("--multihost") == 1


def test_a_signal_reaches_one_process_and_the_others_are_not_left_behind(tmp_path):
    with Pod(python(WAIT), processes=3, devices=1, logs=tmp_path, grace=0.2) as pod:
        pod.start()
        assert pod.wait_until(ready(pod), timeout=20)
        pod.kill(1, signum=signal.SIGTERM)
        assert pod.wait(timeout=20) == [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGKILL]
        assert pod.failed[0] == 1
        assert pod.stopped == {0, 2}


def test_what_takes_too_long_is_ended_and_told(tmp_path):
    with Pod(python(WAIT), processes=1, devices=1, logs=tmp_path) as pod:
        pod.start()
        assert pod.wait_until(ready(pod), timeout=20)
        with pytest.raises(TimeoutError, match=r"processes \[0\] still ran.*\nready"):
            pod.wait(timeout=0.1)
        assert pod.alive() == []


def test_one_status_for_many():
    assert total_status([0, 0]) == 0
    assert total_status([0, 75]) == total_status([75, 75]) == 75
    assert total_status([1, 2]) == 2
    assert total_status([-9, 3, -9]) == 3
    assert total_status([-9, 4]) == 4
    assert total_status([-9, 1, -15], first=2) == 143
    assert total_status([0, 1]) == 1


@pytest.mark.parametrize("text", ["SIGKILL:1@20", "KILL:1@20s", "SIGNONE:1@2s", "SIGKILL:3@20s", "SIGKILL:@2s", "SIGKILL:1"])
def test_a_kill_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match=f"--kill={text}"):
        parse_kill(text, processes=3)


def test_a_killed_pod_is_started_again_until_it_is_done(tmp_path, capsys):
    done = tmp_path / "done"
    code = f"import pathlib, sys; p = pathlib.Path({str(done)!r}); sys.exit(0) if p.exists() else p.touch(); {WAIT}"
    kill = f"--kill=SIGKILL:random@file:{tmp_path}/don*"
    status = main(["--restarts=3", kill, "--grace=0.1", f"--logs={tmp_path}/logs", "--timeout=20", "--", *python(code)])
    said = capsys.readouterr().out
    assert status == 0
    assert "start 2 of at most 4" in said
    assert "start 3" not in said
    assert "SIGKILL to" in said


def test_a_stopped_pod_says_75_and_a_refusal_is_not_repeated(tmp_path, capsys):
    (tmp_path / "ready").mkdir()
    common = [f"--logs={tmp_path}/logs", "--timeout=20", "--grace=20", "--restarts=5"]
    assert main([*common[:3], f"--kill=SIGTERM:all@file:{tmp_path}/ready/all", "--", *python(STOP), f"{tmp_path}/ready"]) == 75
    assert main([*common, "--", *python("import sys; print('nutime: no', file=sys.stderr); sys.exit(2)")]) == 2
    said = capsys.readouterr().out
    assert "] nutime: no" in said
    assert "start 2" not in said


def test_a_pod_that_is_told_to_stop_tells_its_processes(tmp_path):
    (tmp_path / "ready").mkdir()
    command = [sys.executable, LAUNCH / "simulate_pod.py", "--restarts=5", f"--logs={tmp_path}", "--", *python(STOP), tmp_path / "ready"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pod:
        end = time.monotonic() + 20
        while not (tmp_path / "ready" / "all").exists() and time.monotonic() < end:
            time.sleep(0.05)
        pod.terminate()
        assert "process 0 75, process 1 75" in pod.communicate(timeout=20)[0]
    assert pod.returncode == 75


def test_a_dry_run_of_a_pod_runs_nothing(tmp_path, capsys):
    assert main(["--dry-run", "--processes=3", f"--logs={tmp_path}/logs", "--", "nutime", "pretrain", "--config=smoke", "--workdir=W"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [f"NUTIME_PROCESS={index} NUTIME_PROCESSES=3" in line for index, line in enumerate(lines)] == [True] * 3
    assert all(line.endswith("pretrain --config=smoke --workdir=W --multihost=localhost:PORT") for line in lines)
    assert os.listdir(tmp_path) == []
