"""What starts runs elsewhere: the pod on one machine, and scripts that are only ever talked to here."""

import configparser
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch.simulate_pod import Pod, main, parse_kill, total_status
from nutime_jax.cli.main import _parse
from nutime_jax.config import load_config
from nutime_jax.objectives import OBJECTIVES
from nutime_jax.training.loop import check_config

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


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)


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
def test_a_kill_that_means_nothing_is_rejected(text):
    with pytest.raises(ValueError, match=f"--kill={text}"):
        parse_kill(text, processes=3)


def test_a_killed_pod_is_started_again_until_it_is_done(tmp_path, capsys):
    done = tmp_path / "done"
    code = f"import pathlib, sys; p = pathlib.Path({str(done)!r}); sys.exit(0) if p.exists() else p.touch(); {WAIT}"
    kill = f"--kill=SIGKILL:all@file:{tmp_path}/don*"  # of two, the later one may be done by then
    status = main(["--restarts=3", kill, "--grace=0.1", f"--logs={tmp_path}/logs", "--timeout=200", "--", *python(code)])
    said = capsys.readouterr().out
    assert status == 0
    assert "start 2 of at most 4" in said
    assert "start 3" not in said
    assert "SIGKILL to" in said


def test_a_stopped_pod_says_75_and_a_refusal_is_not_repeated(tmp_path, capsys):
    (tmp_path / "ready").mkdir()
    common = [f"--logs={tmp_path}/logs", "--timeout=200", "--grace=20", "--restarts=5"]
    assert main([*common[:3], f"--kill=SIGTERM:all@file:{tmp_path}/ready/all", "--", *python(STOP), f"{tmp_path}/ready"]) == 75
    stack = "*** Check failure stack trace: ***\\n    @     0x7f  f()\\n    @     0x7e  g()\\n"
    assert main([*common, "--", *python(f"import sys; print('{stack}nutime: no', file=sys.stderr); sys.exit(2)")]) == 2
    said = capsys.readouterr().out
    assert "] nutime: no" in said
    assert "[0]     @" not in said
    assert "start 2" not in said


def test_a_pod_that_is_told_to_stop_tells_its_processes(tmp_path):
    (tmp_path / "ready").mkdir()
    command = [sys.executable, LAUNCH / "simulate_pod.py", "--restarts=5", f"--logs={tmp_path}", "--", *python(STOP), tmp_path / "ready"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pod:
        wait_for(tmp_path / "ready" / "all")
        pod.terminate()
        assert "process 0 75, process 1 75" in pod.communicate(timeout=20)[0]
    assert pod.returncode == 75


def test_a_dry_run_of_a_pod_runs_nothing(tmp_path, capsys):
    assert main(["--dry-run", "--processes=3", f"--logs={tmp_path}/logs", "--", "nutime", "pretrain", "--config=smoke", "--workdir=W"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [f"NUTIME_PROCESS={index} NUTIME_PROCESSES=3" in line for index, line in enumerate(lines)] == [True] * 3
    assert all(line.endswith("pretrain --config=smoke --workdir=W --multihost=localhost:PORT") for line in lines)
    assert os.listdir(tmp_path) == []


SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
POD = ["--name=pod", "--zone=somewhere"]
RUN = ["nutime", "pretrain", "--config=smoke", "--config.data.sources=a b", "--workdir=W"]


def shell(script: str, *args: str, tools: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a script with the commands in `tools` before all others."""
    path = f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tools), **environment}
    command = ["bash", LAUNCH / script, *args]
    return subprocess.run(command, cwd=tools, env=environment, capture_output=True, text=True, timeout=60, check=False)


def write_tool(tools: Path, name: str, code: str) -> None:
    tools.mkdir(exist_ok=True)
    (tools / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
    (tools / name).chmod(0o755)


@pytest.fixture
def untouched(tmp_path):
    """Tools of clusters that must not be called."""
    for name in ("gcloud", "srun", "scontrol", "nutime"):
        write_tool(tmp_path / "tools", name, f'echo "{name} $*" >>{tmp_path}/called; exit 1')
    yield tmp_path / "tools"
    assert not (tmp_path / "called").exists()


def test_there_are_scripts():
    assert [path.name for path in SCRIPTS] == ["local.sh", "slurm.sbatch", "tpu_pod.sh", "tpu_worker.sh"]


def test_scripts_are_clean():
    assert subprocess.run([Path(sys.executable).parent / "shellcheck", *SCRIPTS], capture_output=True, text=True, check=False).stdout == ""
    assert all(os.access(path, os.X_OK) for path in LAUNCH.glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", ["local.sh", "tpu_pod.sh"])
def test_help_is_the_head_of_the_script(untouched, script):
    run = shell(script, "--help", tools=untouched)
    assert run.returncode == 0
    assert f"launch/{script} " in run.stdout
    assert "set -euo" not in run.stdout


@pytest.mark.parametrize(
    ("script", "args", "said"),
    [
        ("local.sh", [], "there is no command"),
        ("local.sh", ["--often"], "--often is unknown"),
        ("local.sh", ["--restarts=x", "--", "true"], "--restarts is x"),
        ("slurm.sbatch", [], "there is no command"),
        ("slurm.sbatch", ["nutime"], "this is not a Slurm job"),
        ("tpu_pod.sh", ["fly"], "fly is unknown"),
        ("tpu_pod.sh", ["create"], "no name or no zone"),
        ("tpu_pod.sh", ["create", *POD, "--capacity=free"], "--capacity is free"),
        ("tpu_pod.sh", ["create", *POD, "--slices=2"], "--slices=2 needs --capacity=queued"),
        ("tpu_pod.sh", ["create", *POD, "--slices=0"], "--slices is 0"),
        ("tpu_pod.sh", ["create", *POD, "--type=v9x-8"], "the runtime version of --type=v9x-8 is unknown; add --version"),
        ("tpu_pod.sh", ["run", *POD, "--copy=nowhere.py", "--", "python", "nowhere.py"], "--copy=nowhere.py does not exist"),
        ("tpu_pod.sh", ["watch", *POD], "there is no command"),
        ("tpu_pod.sh", ["run", *POD, "--", "rm"], "the command starts with rm"),
    ],
)
def test_what_scripts_refuse(untouched, script, args, said):
    run = shell(script, *args, tools=untouched, SLURM_JOB_ID="")
    assert run.returncode == 2
    assert said in run.stderr


def test_a_dry_run_prints_commands_and_runs_none(untouched):
    run = shell("local.sh", "--dry-run", "--", *RUN, tools=untouched)
    assert run.returncode == 0
    assert "command nutime pretrain --config=smoke --config.data.sources=a\\ b --workdir=W\n" in run.stdout
    assert "commit " in run.stdout
    run = shell("slurm.sbatch", "--dry-run", *RUN, tools=untouched)
    assert run.returncode == 0
    assert "command srun --kill-on-bad-exit=1" in run.stdout
    assert "--workdir=W --multihost=auto" in run.stdout
    assert "task-%t.log" in run.stdout
    assert sorted(os.listdir(untouched)) == ["gcloud", "nutime", "scontrol", "srun"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            "create",
            [
                "tpus queued-resources create pod --accelerator-type=v6e-64 --runtime-version=v2-alpha-tpuv6e",
                "--network=mine --spot --node-id=pod --zone=somewhere",
            ],
        ),
        ("install", ["+ git clone", "pip wheel", "queued-resources scp", "bash tpu_worker.sh install nutime_jax-VERSION-py3-none-any.whl"]),
        ("run", ["bash tpu_worker.sh start", "pretrain --config=smoke", "a b", "--multihost=auto"]),
        ("status", ["bash tpu_worker.sh state nutime pretrain"]),
        ("logs", ["bash tpu_worker.sh log 20"]),
        ("stop", ["bash tpu_worker.sh stop"]),
        ("watch", ["queued-resources create", "scp", "start", "queued-resources describe", "tpu-vm describe", "queued-resources delete"]),
        ("delete", ["tpus queued-resources delete pod --force --zone=somewhere"]),
    ],
)
def test_a_dry_run_of_a_slice_calls_nothing(untouched, action, expected):
    flags = [*POD, "--type=v6e-64", "--capacity=queued-spot", "--create=--network=mine", "--dry-run"]
    run = shell("tpu_pod.sh", action, *flags, "--", *RUN, tools=untouched)
    assert run.returncode == 0, run.stderr
    rest = run.stdout
    for part in expected:
        assert part in rest
        rest = rest[rest.index(part) :]


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-16", "v2-alpha-tpuv5"),
        ("v6e-64", "v2-alpha-tpuv6e"),
    ],
)
def test_the_runtime_version_follows_the_type(untouched, kind, runtime):
    run = shell("tpu_pod.sh", "create", *POD, f"--type={kind}", "--dry-run", tools=untouched)
    assert f"tpu-vm create pod --accelerator-type={kind} --version={runtime} --spot" in run.stdout
    run = shell("tpu_pod.sh", "create", *POD, f"--type={kind}", "--version=other", "--dry-run", tools=untouched)
    assert "--version=other" in run.stdout


def test_several_slices_are_one_queued_resource(untouched):
    flags = [*POD, "--type=v6e-64", "--slices=2", "--capacity=queued-spot", "--ssh=--tunnel-through-iap", "--dry-run"]
    run = shell("tpu_pod.sh", "watch", *flags, "--", *RUN, tools=untouched)
    assert run.returncode == 0, run.stderr
    assert "queued-resources create pod" in run.stdout
    assert "--spot --node-count=2 --node-prefix=pod" in run.stdout
    assert "tpu-vm describe pod-0" in run.stdout
    reached = [line for line in run.stdout.splitlines() if " scp " in line or " ssh " in line]
    assert len(reached) == 4
    assert all("queued-resources" in line and "--node=all --worker=all --tunnel-through-iap" in line for line in reached)


def test_own_code_travels(untouched):
    (untouched / "mine.py").touch()
    try:
        run = shell("tpu_pod.sh", "run", *POD, "--copy=mine.py", "--dry-run", "--", "python", "mine.py", tools=untouched)
    finally:
        (untouched / "mine.py").unlink()
    assert run.returncode == 0, run.stderr
    assert "tpu_worker.sh mine.py pod: --worker=all --recurse" in run.stdout
    assert "install nutime_jax-VERSION-py3-none-any.whl mine.py" in run.stdout
    assert "python mine.py'" in run.stdout
    assert "--multihost" not in run.stdout


def test_a_configuration_registers_an_objective(tmp_path):
    (tmp_path / "mine.py").write_text("""
from nutime_jax.objectives import BYOL, OBJECTIVES

OBJECTIVES["mine"] = OBJECTIVES["byol"]


def get_config():
    return {"objective": {"kind": "mine"}}
""")
    config = load_config(str(tmp_path / "mine.py"))
    try:
        assert config.objective.kind == "mine"
        check_config(config)
    finally:
        del OBJECTIVES["mine"]


def write_run(tmp_path: Path, *ends: str) -> list[str]:
    """A command that ends in another way every time."""
    cases = " ".join(f"{number}) {end} ;;" for number, end in enumerate(ends, 1))
    write_tool(tmp_path / "tools", "nutime", f"echo $* >>{tmp_path}/given; case $(wc -l <{tmp_path}/given) in {cases} esac")
    return ["nutime", "pretrain", "--workdir=W"]


@pytest.mark.parametrize(
    ("ends", "statuses"),
    [
        (["exit 75", "exit 4", "kill -KILL $$", "exit 0"], [75, 4, 137, 0]),
        (["exit 75", "exit 3"], [75, 3]),
        (["exit 2"], [2]),
        (["exit 1"], [1]),
        (["exit 130"], [130]),
        (["exit 4"] * 4, [4] * 4),
    ],
)
def test_a_machine_gives_the_command_again_until_it_ends_for_good(tmp_path, ends, statuses):
    run = shell("local.sh", "--restarts=3", "--pause=0", "--log=deep/log", "--", *write_run(tmp_path, *ends), tools=tmp_path / "tools")
    assert [int(line.split()[3]) for line in run.stdout.splitlines() if " ended with " in line] == statuses
    assert run.returncode == statuses[-1]
    assert set((tmp_path / "given").read_text().splitlines()) == {"pretrain --workdir=W"}
    assert "ended with" in (tmp_path / "tools" / "deep" / "log").read_text()


def test_a_machine_that_is_told_to_stop_lets_the_run_save(tmp_path):
    command = write_run(tmp_path, "trap 'echo saved; exit 75' TERM; touch ready; while :; do sleep 0.05; done")
    environment = {**os.environ, "PATH": f"{tmp_path / 'tools'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    with subprocess.Popen(["bash", LAUNCH / "local.sh", "--", *command], cwd=tmp_path, env=environment, stdout=-1, text=True) as local:
        wait_for(tmp_path / "ready")
        local.terminate()
        said = local.communicate(timeout=20)[0]
    assert local.returncode == 75
    assert "saved" in said
    assert "starting again" not in said


# Two tasks in sequence. Like srun since Slurm 22.05 it returns the highest status, and gives one CPU unless the flag is there.
SRUN = """
echo "srun $*" >>../called
cpus=1
while [[ $1 == --* ]]; do [[ $1 != --cpus-per-task=* ]] || cpus=${1#*=}; shift; done
echo $cpus >>../cpus
worst=0
for task in 0 1; do SLURM_PROCID=$task "$@"; status=$?; ((status <= worst)) || worst=$status; done
exit $worst
"""


@pytest.mark.parametrize(
    ("ends", "starts", "status", "requeued"),
    [
        (["exit 0", "exit 0"], "0", 0, False),
        (["exit 75", "exit 75"], "0", 75, True),
        (["exit 4", "exit 143"], "3", 143, True),
        (["exit 3", "exit 143"], "0", 3, False),
        (["exit 143", "exit 2"], "0", 2, False),
        (["exit 1", "exit 0"], "0", 1, False),
        (["exit 75", "exit 75"], "50", 75, False),
    ],
)
def test_a_slurm_job_queues_itself_again(tmp_path, ends, starts, status, requeued):
    write_tool(tmp_path / "tools", "srun", SRUN)
    write_tool(tmp_path / "tools", "scontrol", 'echo "scontrol $*" >>../called')
    command = write_run(tmp_path, *ends)
    job = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": starts, "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_CPUS_PER_TASK": "8"}
    run = shell("slurm.sbatch", *command, tools=tmp_path / "tools", **job)
    assert run.returncode == status, run.stderr
    called = (tmp_path / "called").read_text().splitlines()
    assert called[1:] == (["scontrol requeue 17"] if requeued else [])
    assert (tmp_path / "given").read_text() == "pretrain --workdir=W --multihost=auto\n" * 2
    assert (tmp_path / "cpus").read_text() == "8\n"


def test_a_slurm_array_computes_the_shards_of_a_sweep(tmp_path):
    write_tool(tmp_path / "tools", "srun", SRUN)
    write_run(tmp_path, "exit 0", "exit 0")
    command = ["nutime", "sweep", "--config=sweep", "--out=R", "--shard=%a/8"]
    job = {"SLURM_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": ""}
    run = shell("slurm.sbatch", *command, tools=tmp_path / "tools", **job)
    assert run.returncode == 0, run.stderr
    assert set((tmp_path / "given").read_text().splitlines()) == {"sweep --config=sweep --out=R --shard=3/8"}
    assert (tmp_path / "cpus").read_text() == "1\n"


def test_a_cancelled_slurm_job_is_not_queued_again(tmp_path):
    tools = tmp_path / "tools"
    write_tool(tools, "srun", "touch begun; while [ ! -e end ]; do sleep 0.05; done; exit 75")
    write_tool(tools, "scontrol", "touch requeued")
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path), "SLURM_JOB_ID": "17"}
    with subprocess.Popen(["bash", LAUNCH / "slurm.sbatch", *RUN], cwd=tmp_path, env=environment, stdout=-1) as job:
        wait_for(tmp_path / "begun")
        job.terminate()
        (tmp_path / "end").touch()
        job.communicate(timeout=20)
    assert job.returncode == 75
    assert not (tmp_path / "requeued").exists()


# A cloud of one slice with two workers, whose homes are folders. Workers run what they receive; python3 stands in for uv.
GCLOUD = """
cloud=HERE
shift 3 # compute tpus tpu-vm
echo "$1" >>$cloud/calls
case $1 in
  create)
    [ ! -e $cloud/errors ] || { head -n 1 $cloud/errors >&2; sed -i 1d $cloud/errors; [ -s $cloud/errors ] || rm $cloud/errors; exit 1; }
    [ ! -e $cloud/pod ] && mkdir -p $cloud/pod/{0,1} && echo READY >$cloud/pod/state ;;
  delete) for pid in $cloud/pod/*/nutime/pid; do kill -KILL -- -$(cat $pid); done; rm -r $cloud/pod ;;
  describe) [ -e $cloud/pod ] || { echo "ERROR: NOT_FOUND: no such node" >&2; exit 1; }; cat $cloud/pod/state ;;
  scp) for home in $cloud/pod/[01]; do for file in "${@:2}"; do case $file in *:) break ;; *) cp -r "$file" $home ;; esac; done; done ;;
  ssh) for home in $cloud/pod/[01]; do (cd $home && export HOME=$home && for flag; do case $flag in
    --command=*) bash -c "${flag#--command=}" ;;
  esac; done) || exit 1; done ;;
esac
"""
UV = """
case "$*" in "-m uv venv"*) mkdir -p venv/bin && cp HERE/nutime venv/bin ;; esac
"""


def watch_slice(tmp_path: Path, nutime: str, *flags: str) -> tuple[int, str, list[str]]:
    """Watches a run on the slice; the status, what was said, and what the cloud was asked for, but for looking."""
    tools = tmp_path / "tools"
    write_tool(tools, "gcloud", GCLOUD.replace("HERE", str(tmp_path)))
    write_tool(tools, "python3", UV.replace("HERE", str(tmp_path)))
    write_tool(tmp_path, "nutime", nutime.replace("HERE", str(tmp_path)))
    (tools / "any.whl").touch()
    run = shell("tpu_pod.sh", "watch", *POD, "--every=0.1", "--wheel=any.whl", *flags, "--", *RUN, tools=tools)
    calls = [call for call in (tmp_path / "calls").read_text().split() if call in ("create", "delete", "scp")]
    return run.returncode, run.stdout, calls


@pytest.mark.slow
def test_a_preempted_slice_is_made_again_and_goes_on_with_the_identical_command(tmp_path):
    # The first worker of the first slice has it taken away.
    nutime = 'echo $0 "$@" >>HERE/given; [ -e HERE/second ] && exit 0; touch HERE/second; echo PREEMPTED >HERE/pod/state; sleep 60'
    status, said, calls = watch_slice(tmp_path, f"sleep 0.1; {nutime}")
    assert status == 0, said
    assert calls == ["create", "scp", "delete", "create", "scp"]
    assert "the slice is PREEMPTED; creating it again" in said
    assert "the run ended with 0" in said
    runs = (tmp_path / "given").read_text().splitlines()
    assert len(runs) >= 3
    assert {line.split("nutime/venv/bin/")[1] for line in runs} == {" ".join([*RUN, "--multihost=auto"])}


@pytest.mark.slow
def test_a_run_that_dies_is_started_again(tmp_path):
    # Two die, one killed and one of grief; the next two are told to stop; the last two are done.
    nutime = "echo $0 >>HERE/given; case $(wc -l <HERE/given) in 1) kill -KILL $$ ;; 2) exit 1 ;; 3 | 4) exit 75 ;; esac"
    status, said, calls = watch_slice(tmp_path, nutime)
    assert status == 0, said
    assert calls == ["create", "scp"]
    assert "starting again (1 of at most 20)" in said


@pytest.mark.slow
@pytest.mark.parametrize(("nutime", "status"), [("echo nutime: no corpus; exit 2", 2), ("echo nutime: no corpus; exit 1", 1)])
def test_a_watch_ends_with_what_starting_again_does_not_mend(tmp_path, nutime, status):
    ended, said, calls = watch_slice(tmp_path, nutime, "--restarts=1")
    assert ended == status
    assert calls == ["create", "scp"]
    assert "nutime: no corpus" in said


@pytest.mark.slow
def test_a_watch_waits_for_capacity_copies_files_and_deletes_the_slice(tmp_path):
    (tmp_path / "errors").write_text('ERROR: There is no more capacity in the zone "somewhere"\n')
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "mine.py").write_text("mine")
    nutime = "cat mine.py >>HERE/given"
    status, said, calls = watch_slice(tmp_path, nutime, "--copy=mine.py", "--delete-when-done")
    assert status == 0, said
    assert calls == ["create", "create", "scp", "delete"]
    assert "next attempt in 0.1 s" in said
    assert (tmp_path / "given").read_text() == "minemine"


@pytest.mark.parametrize(
    "error",
    [
        "ERROR: (gcloud.compute.tpus.tpu-vm.create) unrecognized arguments: --netwrk=mine",
        "ERROR: PERMISSION_DENIED: Permission 'tpu.nodes.create' denied",
        "ERROR: RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptibleLitepodPerProjectPerZoneForTPUAPI' has been exceeded",
    ],
)
def test_a_watch_stops_for_what_does_not_change(tmp_path, error):
    (tmp_path / "errors").write_text(f"{error}\n")
    status, _, calls = watch_slice(tmp_path, "exit 0")
    assert (status, calls) == (2, ["create"])


def test_the_job_set_is_what_kubernetes_expects():
    job_set = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert job_set["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert job_set["kind"] == "JobSet"
    spec = job_set["spec"]
    assert spec.keys() <= {"network", "successPolicy", "failurePolicy", "replicatedJobs", "startupPolicy", "suspend", "coordinator"}
    [rule] = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    [slices] = spec["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    # A pod a host, and the chips of all hosts are those of the topology.
    chips = container["resources"]["limits"]["google.com/tpu"]
    topology = [int(side) for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
    assert job["completions"] == job["parallelism"] == math.prod(topology) // chips
    assert container["resources"]["requests"] == container["resources"]["limits"]
    # One pod that fails is a reason to start all of them anew; only then does a policy by exit status count.
    assert (job["backoffLimit"], job["completionMode"], pod["restartPolicy"]) == (0, "Indexed", "Never")
    [policy] = job["podFailurePolicy"]["rules"]
    assert policy["action"] == "FailJob"
    assert policy["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3]}
    assert container["command"][2].endswith('exec "$@"')
    assert container["args"][-1] == "--multihost=auto"
    load_config(*[one.removeprefix("--config=") for one in container["args"] if one.startswith("--config=")])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


GUIDE = (LAUNCH / "README.md").read_text()


def test_every_file_is_explained_and_every_command_is_understood(untouched):
    files = {path.name for path in LAUNCH.iterdir() if path.is_file()} - {"README.md"}
    assert files <= set(re.findall(r"\]\(([\w.]+)\)", GUIDE))
    [block] = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    for command in map(shlex.split, block.splitlines()):
        if "nutime" in command:
            # Parsing a bucket needs the extra gcs, which this test does without.
            args = _parse([part.replace("gs://", "/") for part in command[command.index("nutime") + 1 :]])
            load_config(args.config, args.overrides, schema=args.schema)
        if command[0].startswith("launch/"):
            flags = command[1:2] * command[0].endswith("tpu_pod.sh") + ["--dry-run"]
            run = shell(Path(command[0]).name, *flags, *command[len(flags) :], tools=untouched)
            assert run.returncode == 0, run.stderr
        if command[0] == "python":
            assert main([*command[2 : command.index("--")], "--dry-run", *command[command.index("--") :]]) == 0


def test_the_table_of_the_guide_is_what_its_program_prints(capsys):
    [program] = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    exec(program, {})
    printed = capsys.readouterr().out
    assert printed.count("\n") == 7
    assert printed in GUIDE


def test_the_image_installs_extras_that_exist():
    text = (LAUNCH / "Dockerfile").read_text()
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    chosen = {extra for extras in re.findall(r"EXTRAS=(\S+)", text) for extra in extras.split(",")}
    assert {"train", "gcs", "tpu", "cuda"} <= chosen <= set(setup["options.extras_require"])
    assert [line.split()[0] for line in text.splitlines() if re.match("[A-Z]", line)] == [
        *("ARG", "FROM", "ARG", "COPY", "RUN", "ENV", "WORKDIR", "CMD"),
    ]
    kept = {line[1:] for line in (LAUNCH / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept >= {"setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "nutime_jax", "configs"}
    assert all((ROOT / name).exists() for name in kept)
