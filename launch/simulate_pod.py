#!/usr/bin/env python3
"""Simulate a pod on one machine: several processes of one run, each with a few CPU devices, some of which are killed.

    python launch/simulate_pod.py --processes=3 --devices=2 -- nutime pretrain --config=smoke --workdir=runs/pod
    python launch/simulate_pod.py --processes=3 --devices=2 --kill=SIGKILL:1@20s --restarts=5 -- nutime pretrain ...

--kill=SIGNAL:WHO@WHEN. WHO is an index, several (0,2), random or all; WHEN is a time since the start (20s), a time sampled from
a range (5-20s), or file:PATTERN, as soon as such a file exists. The first --kill applies to the first start, the second to the
second. --restarts runs the same command again until it exits with 0, 2 or 3.

Each process has a log. Exit status: 0 if that of all processes is 0; 2, 3 or 4 if that of any process is; 75 if the run was
preempted and has saved its state; else that of the first process that failed, 128 + signal if it was killed.
"""

import argparse
import contextlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PREEMPTED = 75
FINAL = (0, 2, 3)
"""Exit statuses after which a restart would end in the same way."""


class Pod:
    """Several processes of one run on this machine. A context manager; processes that still run at its end are killed.

        with Pod(["nutime", "pretrain", ...], processes=2, devices=4, logs=tmp_path) as pod:
            pod.start()
            pod.wait_until(checkpoint.exists, timeout=60)
            pod.kill(1)
            statuses = pod.wait(timeout=60)

    command: command of each process, plus --multihost=localhost:PORT with a free port per start. `nutime` is that of this Python.
    processes, devices: number of processes, and of CPU devices of each.
    logs: folder of process-0.log, process-1.log, ..., to which every start appends, and of compiled programs of a single process.
    environment: variables that differ from those of this process.
    grace: seconds in which the other processes may exit after a failure; then they are killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        processes: int,
        devices: int,
        logs: str | os.PathLike,
        environment: Mapping[str, str] | None = None,
        grace: float = 15.0,
    ):
        self.command, self.processes, self.devices, self.grace = list(command), processes, devices, grace
        self.folder = Path(logs).absolute()
        self.environment = dict(environment or {})
        self.failed: list[int] = []
        """Processes that exited with another status than 0, in order of exit."""
        self.stopped: set[int] = set()
        """Processes that this pod killed after a failure or a timeout."""
        self._running: list[subprocess.Popen] = []
        self._offsets: list[int] = []
        self._deadline: float | None = None

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> "Pod":
        """Start every process; after all have exited, start the same command again."""
        if self.alive():
            raise RuntimeError("this pod is running; wait for it, or stop it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.failed, self.stopped, self._deadline = [], set(), None
        address = f"localhost:{_free_port()}"
        self._running, self._offsets = [], []
        for index in range(self.processes):
            with open(self.log(index), "ab") as log:
                self._offsets.append(log.tell())
                command = [*_resolve(self.command), f"--multihost={address}"]
                process = subprocess.Popen(command, env=self._environment(index), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self._running.append(process)
        return self

    def alive(self) -> list[int]:
        """Return the indices of the running processes."""
        return [index for index, process in enumerate(self._running) if process.poll() is None]

    def pid(self, index: int) -> int:
        """Return the process id of a process."""
        return self._running[index].pid

    def kill(self, *who: int, signum: int = signal.SIGKILL) -> None:
        """Send a signal to processes; those that have exited ignore it."""
        for index in who:
            self._running[index].send_signal(signum)

    def poll(self) -> bool:
        """Return whether every process has exited. After a failure the others are killed when `grace` has passed."""
        for index, process in enumerate(self._running):
            if process.poll() and index not in self.failed:
                self.failed.append(index)
        alive = self.alive()
        if self.failed and self._deadline is None:
            self._deadline = time.monotonic() + self.grace
        if alive and self._deadline is not None and time.monotonic() > self._deadline:
            self.stop()
        return not alive

    def wait(self, *, timeout: float) -> list[int]:
        """Wait until every process has exited; return the exit statuses, minus the signal number for a killed process.

        Raises:
            TimeoutError: processes still run after `timeout` seconds; they are killed, and the message has the end of a log.
        """
        self.wait_until(lambda: False, timeout=timeout)
        return [process.returncode for process in self._running]

    def wait_until(self, condition: Callable[[], bool], *, timeout: float) -> bool:
        """Waits until the condition holds (True) or every process has ended (whether it holds then). Raises as `wait` does."""
        end = time.monotonic() + timeout
        while not condition():
            if self.poll():
                return bool(condition())
            if time.monotonic() > end:
                slow = self.alive()
                self.stop()
                raise TimeoutError(f"processes {slow} still ran after {timeout:g} s; the log of one ends with\n{self.tail(slow[0])}")
            time.sleep(0.05)
        return True

    def stop(self) -> None:
        """Kill the running processes, and wait for their exit."""
        alive = self.alive()
        self.stopped |= set(alive)
        self.kill(*alive)
        self.failed += [index for index in alive if self._running[index].wait()]

    def line(self, index: int) -> str:
        """Return the command of a process as a shell command."""
        changed = [f"{name}={value}" for name, value in self._environment(index).items() if os.environ.get(name) != value]
        return shlex.join(["env", *changed, *_resolve(self.command), "--multihost=localhost:PORT"])

    def log(self, index: int) -> Path:
        return self.folder / f"process-{index}.log"

    def output(self, index: int) -> str:
        """Return the output of a process since the last start, without the lines of Gloo, which connects CPUs."""
        with open(self.log(index), "rb") as file:
            file.seek(self._offsets[index])
            return re.sub(r"^\[Gloo\].*\n", "", file.read().decode(errors="replace"), flags=re.MULTILINE)

    def tail(self, index: int, lines: int = 15) -> str:
        """Return the last lines of a process, without the C++ stack of an abort."""
        text = re.sub(r"^\*\*\* Check failure.*\n(    @ .*\n?)*", "", self.output(index), flags=re.MULTILINE)
        return "\n".join(re.split(r"[\r\n]+", text.rstrip())[-lines:])

    def _environment(self, index: int) -> dict[str, str]:
        flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in flag]
        # On CPU only process 0 finds its compiled programs again: it would wait for the others, which compile, for half a minute
        # at most. So all processes compile.
        cached = self.processes == 1
        return {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compilations"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **os.environ,
            "JAX_ENABLE_COMPILATION_CACHE": str(cached).lower(),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": " ".join([*flags, f"--xla_force_host_platform_device_count={self.devices}"]),
            "PYTHONUNBUFFERED": "1",
            **self.environment,
            "NUTIME_PROCESS": str(index),
            "NUTIME_PROCESSES": str(self.processes),
        }


def total_status(statuses: Sequence[int], *, first: int | None = None) -> int:
    """Return one exit status for several processes.

    Args:
        statuses: of every process, minus the signal for one that was killed.
        first: the process that failed first.
    """
    for said in (2, 3, 4):
        if said in statuses:
            return said
    if set(statuses) <= {0, PREEMPTED}:
        return max(statuses)
    status = statuses[first] if first is not None else next(status for status in statuses if status)
    return 128 - status if status < 0 else status


@dataclass(frozen=True)
class Kill:
    """A signal to processes, at a time."""

    signum: signal.Signals
    who: str
    when: str

    def due(self, pod: Pod, *, draw: random.Random) -> tuple[Callable[[], bool], list[int]]:
        """Return a function that tells whether to send the signal, and the processes, if the pod starts now."""
        everyone = list(range(pod.processes))
        if self.who == "all":
            who = everyone
        else:
            who = [draw.choice(everyone)] if self.who == "random" else [int(index) for index in self.who.split(",")]
        if self.when.startswith("file:"):
            pattern = Path(self.when.removeprefix("file:")).absolute()
            root = Path(pattern.anchor)
            return lambda: any(root.glob(str(pattern.relative_to(root)))), who
        low, _, high = self.when.removesuffix("s").partition("-")
        end = time.monotonic() + draw.uniform(float(low), float(high or low))
        return lambda: time.monotonic() >= end, who


def parse_kill(text: str, *, processes: int) -> Kill:
    """Parse SIGNAL:WHO@WHEN.

    Raises:
        ValueError: the text has another form, or the signal or the process does not exist.
    """
    example = "write SIGKILL:1@20s, SIGTERM:random@5-20s or SIGKILL:0,2@file:runs/pod/checkpoints/00000003"
    match = re.fullmatch(r"(SIG[A-Z0-9]+):(all|random|\d+(?:,\d+)*)@(file:.+|\d+(?:\.\d+)?(?:-\d+(?:\.\d+)?)?s)", text)
    if match is None or match[1] not in signal.Signals.__members__:
        raise ValueError(f"--kill={text} is invalid; {example}")
    if match[2][0].isdigit() and max(map(int, match[2].split(","))) >= processes:
        raise ValueError(f"--kill={text} names a process that does not exist; the last of {processes} is {processes - 1}")
    return Kill(signal.Signals[match[1]], match[2], match[3])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--processes", type=int, default=2, help="number of processes (default: 2)")
    parser.add_argument("--devices", type=int, default=2, help="CPU devices per process (default: 2)")
    parser.add_argument("--kill", action="append", default=[], metavar="SIGNAL:WHO@WHEN", help="repeatable")
    parser.add_argument("--restarts", type=int, default=0, help="maximum number of restarts (default: 0)")
    parser.add_argument("--grace", type=float, default=15, help="seconds in which the others may exit after a failure (default: 15)")
    parser.add_argument("--timeout", type=float, default=3600, help="time limit per start in seconds (default: 3600)")
    parser.add_argument("--logs", default="runs/simulated_pod", help="folder of the logs (default: runs/simulated_pod)")
    parser.add_argument("--seed", type=int, default=0, help="seed of random kills (default: 0)")
    parser.add_argument("--dry-run", action="store_true", help="print the command of every process, and run nothing")
    parser.add_argument("command", nargs="+", help="-- nutime pretrain --config=... --workdir=...")
    args = parser.parse_args(argv)
    for name, least in {"processes": 1, "devices": 1, "restarts": 0}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name} is {getattr(args, name)}; choose {least} or more")
    try:
        kills = [parse_kill(text, processes=args.processes) for text in args.kill]
    except ValueError as error:
        parser.error(str(error))
    pod = Pod(args.command, processes=args.processes, devices=args.devices, logs=args.logs, grace=args.grace)
    if args.dry_run:
        for index in range(args.processes):
            print(pod.line(index))
        return 0
    _say(f"commit {_commit()}; {args.processes} processes of {args.devices} devices; logs in {pod.folder}")
    _say(shlex.join(args.command))
    told = []
    with pod, _forwarded(pod, told):
        return _run(pod, kills, told, restarts=args.restarts, timeout=args.timeout, draw=random.Random(args.seed))


def _run(pod: Pod, kills: list[Kill], told: list[int], *, restarts: int, timeout: float, draw: random.Random) -> int:
    """Start the pod until it is done; return its last status."""
    for number in range(restarts + 1):
        _say(f"start {number + 1} of at most {restarts + 1}")
        began = time.monotonic()
        pod.start()
        try:
            if number < len(kills):
                due, who = kills[number].due(pod, draw=draw)
                pod.wait_until(lambda due=due: due() or not pod.alive(), timeout=timeout)
                if pod.alive():
                    _say(f"{kills[number].signum.name} to {', '.join(map(str, who))} after {time.monotonic() - began:.1f} s")
                    pod.kill(*who, signum=kills[number].signum)
            statuses = pod.wait(timeout=timeout)
        except TimeoutError as error:
            _say(str(error))
            return 124
        status = total_status(statuses, first=pod.failed[0] if pod.failed else None)
        _say(f"ended after {time.monotonic() - began:.1f} s with {status}: {_describe(pod, statuses)}")
        if pod.failed:
            _say(f"end of {pod.log(pod.failed[0])}:")
            print(_indent(pod.tail(pod.failed[0]), f"[{pod.failed[0]}] "), flush=True)
        if status in FINAL or told:
            break
    return status


@contextlib.contextmanager
def _forwarded(pod: Pod, told: list[int]):
    """Forward SIGTERM to every process, as a scheduler sends it; the run is then not started again."""

    def forward(signum: int, _) -> None:
        told.append(signum)
        pod.kill(*pod.alive(), signum=signum)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(pod: Pod, statuses: Sequence[int]) -> str:
    words = []
    for index, status in enumerate(statuses):
        name = signal.Signals(-status).name if status < 0 else str(status)
        words.append(f"process {index} {name}{' by this pod' if index in pod.stopped else ''}")
    return ", ".join(words)


def _resolve(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "nutime_jax.cli.main", *command[1:]] if command[0] == "nutime" else list(command)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def _commit() -> str:
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _indent(text: str, prefix: str) -> str:
    return "\n".join(prefix + line for line in text.splitlines())


def _say(text: str) -> None:
    print(f"pod: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
