"""Fault-injection tests: real runs are killed, preempted, stopped and corrupted, and must end as if undisturbed.

    python -m benchmarks.faults
    python -m benchmarks.faults --tests=kills,damage --kills=50 --out=benchmarks/results/faults.json
    python -m benchmarks.faults --tests=sigterms --sigterms=8 --seed=1 --add=sigterms --out=benchmarks/results/faults.json

kills      SIGKILL at random moments of a single-process run, while it starts, trains and writes checkpoints; restarted each
           time, its result must equal that of an undisturbed run bit for bit
sigterms   SIGTERM to a random process of three, while a fresh and a resumed run start, compile, train and save: all have to stop
           after the same step with status 75, and the run to end with the same bits
peers      a process of three that never comes, or is killed while it starts: the others must end with a sentence
slices     SIGKILL and SIGTERM to a random process of two slices of two processes, in every phase: the run has to end with the bits
           of an undisturbed one (slice_losses: whose losses are those of one process)
topology   the same seed and global batch on 4 processes of 2 devices and on 1 of 1, and a run that goes on on others
damage     the newest checkpoint corrupted in every way, full or read-only disks: the last intact one is used
           and named, or the run stops with one error line; no intact checkpoint is deleted
disks      a disk that becomes full, and a limit on the size of files, after the first checkpoint
hang       a process that stops breathing: the others have to say where they stand, and end

Runs are of this checkout.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.records import machine, write_results
from launch.simulate_pod import Pod

PREEMPTED, HUNG = 75, 4
FIELDS = ("step", "params", "variables", "target_params", "target_variables", "opt_state")
NUTIME = (sys.executable, "-m", "nutime_jax.cli.main")
UNOPTIMISED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""Environment of runs whose processes all compile, on few cores."""
QUIET = ("--config.evaluation.sources=", "--config.run.probe_every=0")
"""Options that turn off the final table and the probes."""


def pretrain_command(workdir: Path, *overrides: str) -> list[str]:
    """Return the command of a run with the code that this Python imports."""
    fields = (f"--config.{override}" for override in overrides)
    return [*NUTIME, "pretrain", "--config=smoke", f"--workdir={workdir}", *QUIET, *fields]


def final_state(workdir: Path) -> dict:
    """Return all arrays of the newest intact checkpoint of a workdir."""
    from nutime_jax.training.checkpoints import latest_checkpoint, read_arrays

    return read_arrays(latest_checkpoint(workdir / "checkpoints"), FIELDS)


def metrics(workdir: Path) -> list[dict]:
    """Return all logged metrics without times."""
    from nutime_jax.training.metrics import TIMINGS

    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def losses(workdir: Path) -> np.ndarray:
    return np.array([line["loss"] for line in metrics(workdir)])


def same_bits(a: Path, b: Path) -> bool:
    """Return whether two runs have equal arrays and metrics."""
    import jax

    equal = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), final_state(a), final_state(b))
    return all(jax.tree.leaves(equal)) and metrics(a) == metrics(b)


def newest(workdir: Path) -> int:
    """Return the step of the newest checkpoint, intact or not; -1 if none exists."""
    return max((int(path.name) for path in (workdir / "checkpoints").glob("0*") if path.name.isdecimal()), default=-1)


def drill_kills(folder: Path, *, kills: int, steps: int, draw: random.Random) -> dict:
    """Wait for the moment of a kill: every fifth at any time since the start, the others while a checkpoint is written."""
    overrides = (f"steps={steps}", "run.checkpoint_every=5", "run.log_every=5", "run.max_to_keep=2")
    pod = Pod(pretrain_command(folder / "calm", *overrides), processes=1, devices=1, logs=folder / "logs")
    with pod:
        assert_ended(pod.start().wait(timeout=900), [0], pod)
    moments: Counter[str] = Counter()
    longest = 8.0
    with Pod(pretrain_command(folder / "killed", *overrides), processes=1, devices=1, logs=folder / "logs") as pod:
        for number in range(kills):
            before, began = newest(folder / "killed"), time.monotonic()
            pod.start()
            if number % 5:
                pod.wait_until(lambda before=before: newest(folder / "killed") > before, timeout=900)
                longest = time.monotonic() - began
                time.sleep(draw.uniform(0, 0.4))
            else:
                time.sleep(draw.uniform(0, longest))
            if not pod.alive():
                raise RuntimeError(f"The run finished after {number} kills. Give it more steps.")
            pod.kill(0)
            pod.wait(timeout=60)
            writing = any((folder / "killed" / "checkpoints").glob("*.orbax-checkpoint-tmp"))
            moments["writing a checkpoint" if writing else "starting" if newest(folder / "killed") == before else "training"] += 1
        assert_ended(pod.start().wait(timeout=900), [0], pod)
        resumed = f"resuming from {folder / 'killed' / 'checkpoints'}" in pod.output(0)
    identical = same_bits(folder / "killed", folder / "calm")
    return {"tried": kills, "moments": dict(moments), "resumed": resumed, "identical": identical}


MOMENTS = ("start", "compilation", "training", "saving")
"""Phases of a start in which a signal is sent, in turn."""


class Started(NamedTuple):
    """A started run: its pod, its workdir, and the step that it starts from."""

    pod: Pod
    workdir: Path
    begun: int

    def phase(self) -> str:
        if any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp")):
            return "saving"
        if self.has_stepped():
            return "training"
        return "compilation" if self.has_opened() else "start"

    def has_opened(self) -> bool:
        return "encoder parameters" in self.pod.output(0)

    def has_stepped(self) -> bool:
        file = self.workdir / "metrics.jsonl"
        return file.exists() and f'"step": {self.begun + 1}, ' in file.read_text()

    def durations(self) -> tuple[float, float]:
        """Wait for the first step; return the seconds until the data is open, and from then to the end of the first step."""
        times = [time.monotonic()]
        for condition in (self.has_opened, self.has_stepped):
            self.pod.wait_until(condition, timeout=900)
            times.append(time.monotonic())
        return times[1] - times[0], times[2] - times[1]

    def wait_for(self, moment: str, *, start_s: float, compile_s: float, draw: random.Random) -> None:
        """Wait until a random time of a phase."""
        if moment == "start":
            time.sleep(draw.uniform(1, max(start_s, 1)))  # a second later than Python, which dies of a signal
            return
        self.pod.wait_until(self.has_opened, timeout=900)
        if moment == "compilation":
            time.sleep(draw.uniform(0, compile_s))
            return
        self.pod.wait_until(self.has_stepped, timeout=900)
        if moment == "training":
            time.sleep(draw.uniform(0, 2))
        else:
            self.pod.wait_until(lambda: self.phase() == "saving", timeout=300)


def drill_sigterms(folder: Path, *, signals: int, steps: int, draw: random.Random) -> dict:
    """Send SIGTERM to one process of three, of a fresh and of a resumed run in turn: all must save the same step and exit with 75."""
    saves = ("run.checkpoint_every=20", "run.max_to_keep=2", "run.log_every=1")
    overrides = (f"steps={steps}", "batch_size=24", "model.depth=1", f"data.dir={folder / 'data'}", *saves)
    layout = {"processes": 3, "devices": 1, "logs": folder / "logs", "grace": 60, "environment": UNOPTIMISED}
    with Pod(pretrain_command(folder / "calm", *overrides), **layout) as pod:
        start_s, compile_s = Started(pod.start(), folder / "calm", 0).durations()
        assert_ended(pod.wait(timeout=1800), [0, 0, 0], pod)
    statuses: Counter[str] = Counter()
    for number in range(signals):
        resumed = number % 2 == 1
        workdir = folder / ("told" if resumed or number == 0 else "fresh")
        shutil.rmtree(folder / "fresh", ignore_errors=True)
        with Pod(pretrain_command(workdir, *overrides), **layout) as pod:
            run = Started(pod.start(), workdir, max(newest(workdir), 0))
            run.wait_for(MOMENTS[number // 2 % len(MOMENTS)], start_s=start_s, compile_s=compile_s, draw=draw)
            phase = run.phase()
            if not pod.alive():
                raise RuntimeError(f"The run finished after {number} signals. Give it more steps.")
            pod.kill(draw.randrange(3), signum=signal.SIGTERM)
            ended = pod.wait(timeout=900)
            agreed = all(f"saved a checkpoint at step {newest(workdir)}." in pod.output(index) for index in range(3))
        outcome = " ".join(map(str, ended)) + ("" if agreed else ", different steps")
        statuses[f"{'resumed' if resumed else 'fresh'}, {phase}: {outcome}"] += 1
        print(number, phase, outcome, flush=True)
    with Pod(pretrain_command(folder / "told", *overrides), **layout) as pod:
        assert_ended(pod.start().wait(timeout=1800), [0, 0, 0], pod)
    same = same_bits(folder / "told", folder / "calm")
    right = sum(count for outcome, count in statuses.items() if outcome.endswith(f": {PREEMPTED} {PREEMPTED} {PREEMPTED}"))
    return {"tried": signals, "right": right, "statuses": dict(sorted(statuses.items())), "identical": same}


SLICES = """
import sys
from nutime_jax.cli.main import main
from nutime_jax.distributed import mesh

def by_slice(devices):
    slices = [[device for device in devices if device.process_index // 2 == index] for index in (0, 1)]
    return [slice for slice in slices if slice]

mesh._by_slice = by_slice
sys.exit(main())
"""
"""Program of a process whose devices are in slices of two processes; those of CPUs are in none."""


def sliced_pod(workdir: Path, *overrides: str, **layout: Any) -> Pod:
    """Return a pod of two slices of two processes, which shards parameters within a slice."""
    arguments = pretrain_command(workdir, *overrides, "parallel.fsdp=2")[len(NUTIME) :]
    return Pod([sys.executable, "-c", SLICES, *arguments], processes=4, devices=1, logs=workdir.parent / "logs", **layout)


def drill_slices(folder: Path, *, kills: int, sigterms: int, first: int, draw: random.Random) -> dict:
    """Send SIGKILLs, then SIGTERMs, to a random process of two slices of two, in phase `first` and the following in turn."""
    saves = ("run.checkpoint_every=4", "run.max_to_keep=2", "run.log_every=1", "data.synthetic_fraction=1")
    overrides = (f"steps={40 + 12 * (kills + sigterms)}", "batch_size=16", "model.depth=1", "objective.output_dim=256", *saves)
    with sliced_pod(folder / "calm", *overrides, environment=UNOPTIMISED) as pod:
        start_s, compile_s = Started(pod.start(), folder / "calm", 0).durations()
        assert_ended(pod.wait(timeout=1800), [0] * 4, pod)
    statuses: Counter[str] = Counter()
    with sliced_pod(folder / "struck", *overrides, environment=UNOPTIMISED) as pod:
        for number, signum in enumerate([signal.SIGKILL] * kills + [signal.SIGTERM] * sigterms):
            pod.grace = 15 if signum == signal.SIGKILL else 60
            run = Started(pod.start(), folder / "struck", max(newest(folder / "struck"), 0))
            run.wait_for(MOMENTS[(first + number) % len(MOMENTS)], start_s=start_s, compile_s=compile_s, draw=draw)
            phase = run.phase()
            if not pod.alive():
                raise RuntimeError(f"The run finished after {number} signals. Give it more steps.")
            pod.kill(draw.randrange(4), signum=signum)
            ended = pod.wait(timeout=900)
            right = signum == signal.SIGKILL or ended == [PREEMPTED] * 4
            statuses[f"{signum.name}, {phase}" + ("" if right else f": {' '.join(map(str, ended))}")] += 1
            print(number, signum.name, phase, ended, flush=True)
        assert_ended(pod.start().wait(timeout=1800), [0] * 4, pod)
    preempted = sum(statuses[f"SIGTERM, {moment}"] for moment in MOMENTS)
    identical = same_bits(folder / "struck", folder / "calm")
    return {"tried": kills + sigterms, "preempted": preempted, "identical": identical, "statuses": dict(sorted(statuses.items()))}


def drill_slice_losses(folder: Path) -> dict:
    """Return the relative difference of the losses of two slices of two processes, and of one process."""
    overrides = ("batch_size=16", "objective.output_dim=256", "model.depth=1", "steps=40", "run.log_every=1", "data.synthetic_fraction=1")
    with Pod(pretrain_command(folder / "one", *overrides), processes=1, devices=1, logs=folder / "logs") as pod:
        assert_ended(pod.start().wait(timeout=900), [0], pod)
    with sliced_pod(folder / "slices", *overrides) as pod:
        assert_ended(pod.start().wait(timeout=1800), [0] * 4, pod)
    one, slices = losses(folder / "one"), losses(folder / "slices")
    return {f"relative_difference_{steps}_steps": difference(slices[:steps], one[:steps]) for steps in (20, 40)}


def added(before: Any, now: Any) -> Any:
    """Return the sum of two results: counts are added, of figures the larger is taken, outcomes must hold in both."""
    if isinstance(now, dict):
        return {key: added(before[key], now[key]) if key in before and key in now else (before | now)[key] for key in before | now}
    if isinstance(now, bool):
        return before and now
    return max(before, now) if isinstance(now, float) else before + now


def drill_peers(folder: Path, *, draw: random.Random) -> dict:
    """Leave out one of three processes, and kill one while it starts: the others must end with one sentence and status 4."""
    command = pretrain_command(folder / "run", "batch_size=24")
    outcomes = {}
    with Pod(command, processes=3, devices=1, logs=folder / "logs", grace=1000) as pod:
        for name, seconds in {"never came": 0.0, "killed while it started": draw.uniform(3, 15)}.items():
            pod.start()
            time.sleep(seconds)
            pod.kill(1)
            began = time.monotonic()
            statuses = pod.wait(timeout=900)
            said = [[line for line in pod.output(index).splitlines() if line.startswith("nutime: ")] for index in (0, 2)]
            noisy = any("Traceback" in pod.output(index) or "Check failure" in pod.output(index) for index in (0, 2))
            outcomes[name] = {"statuses": statuses, "after_seconds": time.monotonic() - began, "said": said, "stack": noisy}
    return outcomes


def drill_topology(folder: Path) -> dict:
    """Return the largest relative difference of losses between device layouts of the same run."""
    # The published width of the projections: with few dimensions the normalised differences are ill-conditioned.
    overrides = ("batch_size=48", "objective.output_dim=256", "steps=40", "run.log_every=1", "run.checkpoint_every=20")
    runs = {}
    for processes, devices in ((1, 1), (4, 2), (3, 1), (2, 4)):
        name = f"{processes}x{devices}"
        with Pod(pretrain_command(folder / name, *overrides), processes=processes, devices=devices, logs=folder / "logs") as pod:
            assert_ended(pod.start().wait(timeout=900), [0] * processes, pod)
        runs[name] = losses(folder / name)
    figures = {f"{name} against 1x1, 40 steps": difference(run, runs["1x1"]) for name, run in runs.items() if name != "1x1"}
    for before, (processes, devices) in {"3x1": (1, 1), "4x2": (3, 1), "1x1": (2, 4)}.items():
        moved = folder / f"{before}-moved"
        shutil.copytree(folder / before, moved)
        shutil.rmtree(moved / "checkpoints" / "00000040")
        with Pod(pretrain_command(moved, *overrides), processes=processes, devices=devices, logs=folder / "logs") as pod:
            assert_ended(pod.start().wait(timeout=900), [0] * processes, pod)
        figures[f"{before}, from step 20 on as {processes}x{devices}, against {before}"] = difference(losses(moved), runs[before])
    return {"relative_differences": figures, "within": all(value <= 1e-6 for value in figures.values())}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a / b - 1).max())


def damages() -> dict[str, Callable[[Path], object]]:
    """Return name -> corruption of the checkpoint folder of a run with checkpoints at steps 4, 8 and 12."""
    kinds = {
        "about": lambda new: new / "about.json",
        "manifest": lambda new: new / "manifest.json",
        "metadata": lambda new: new / "state" / "_METADATA",
        "data": lambda new: max((path for path in new.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size),
    }
    corruptions = {"truncated": _truncate, "deleted": Path.unlink, "zeroed": _zero, "one bit flipped": _flip}
    named = {
        f"{kind} {deed}": lambda folder, find=find, act=act: act(find(folder / "00000012"))
        for kind, find in kinds.items()
        for deed, act in corruptions.items()
    }
    return named | {
        "state folder deleted": lambda folder: shutil.rmtree(folder / "00000012" / "state"),
        "half renamed: an empty folder": lambda folder: (folder / "00000016").mkdir(),
        "half renamed: without manifest": lambda folder: shutil.copytree(
            folder / "00000012", folder / "00000016", ignore=shutil.ignore_patterns("manifest.json")
        ),
        "left over: incomplete and other folders": lambda folder: [
            (folder / name / "state").mkdir(parents=True) for name in ("00000016.orbax-checkpoint-tmp", ".deleted-4")
        ],
        "stray file beside": lambda folder: (folder / "notes.txt").write_text("mine"),
        "stray file inside": lambda folder: (folder / "00000012" / "notes.txt").write_text("mine"),
        "a file in place of a folder": lambda folder: (folder / "00000016").write_text(""),
        "all of them zeroed": lambda folder: [_zero(path / "state" / "_METADATA") for path in folder.glob("0*[0-9]")],
    }


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def drill_damage(folder: Path) -> dict:
    """Return the outcome of every corruption; `failed` names those with a wrong outcome."""
    overrides = ("steps=12", "run.checkpoint_every=4", "run.max_to_keep=9")
    whole = folder / "whole"
    status, _ = run_here(whole, *overrides)
    if status:
        raise RuntimeError("The run to be corrupted did not finish.")
    other = folder / "other"
    run_here(other, *overrides, "model.width=8")
    outcomes, failed = {}, []
    cases = damages()
    cases["another model's checkpoint"] = lambda checkpoints: shutil.copytree(other / "checkpoints" / "00000012", checkpoints / "00000016")
    for name, damage in cases.items():
        workdir = folder / "damaged"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(whole, workdir)
        damage(workdir / "checkpoints")
        good = intact(workdir)
        status, said = run_here(workdir, *overrides)
        kept = good <= intact(workdir)
        right = (status == 0 and same_bits(workdir, whole)) or (status == 2 and refused(said))
        outcomes[name] = f"status {status}" + (f": {said[-1]}" if said else "")
        failed += [] if kept and right else [name]
    for name, limited in (("disk full", tiny_disk), ("read-only", read_only_disk), ("file size limit", file_size_limit)):
        with limited(folder) as (workdir, about):
            if workdir is None:
                outcomes[name] = f"not tried: {about}"
                continue
            apart = f"data.dir={whole / 'data'}"
            status, said = run_here(workdir, *overrides, apart, subprocess_limit=about)
            outcomes[name] = f"status {status}: {said[-1] if said else ''}"
            failed += [] if status == 2 and refused(said) else [name]
    return {"tried": len(outcomes), "failed": failed, "outcomes": {name: text.replace(str(folder), "") for name, text in outcomes.items()}}


def refused(said: list[str]) -> bool:
    """Return whether a run ended with one error line of this library; warnings of other libraries do not count."""
    return sum(line.startswith("nutime:") for line in said) == 1


def intact(workdir: Path) -> set[str]:
    from nutime_jax.training.checkpoints import list_checkpoints, verify_checkpoint

    return {path.name for path in list_checkpoints(workdir / "checkpoints") if verify_checkpoint(path) is None}


def run_here(workdir: Path, *overrides: str, subprocess_limit: int = 0) -> tuple[int, list[str]]:
    """Return status and messages of a run, in this process, or in a separate one if the file size is limited."""
    command = pretrain_command(workdir, *overrides)
    if subprocess_limit:
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (subprocess_limit, subprocess_limit))  # noqa: E731
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
        return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("nutime:")]
    from nutime_jax.cli.main import main

    warnings, errors = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(warnings)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = main(command[len(NUTIME) :])
    finally:
        logging.getLogger().removeHandler(handler)
    refusals = [line for line in errors.getvalue().splitlines() if line.startswith("nutime:")]
    return status, warnings.getvalue().splitlines() + refusals


@contextlib.contextmanager
def tiny_disk(folder: Path) -> Iterator[tuple[Path | None, object]]:
    """A disk that is full before the first checkpoint is complete."""
    with mounted(folder / "tiny", "size=200k") as where:
        yield (where / "run", 0) if where else (None, "no file system can be mounted here")


@contextlib.contextmanager
def read_only_disk(folder: Path) -> Iterator[tuple[Path | None, object]]:
    with mounted(folder / "fixed", "ro") as where:
        yield (where / "run", 0) if where else (None, "no file system can be mounted here")


@contextlib.contextmanager
def file_size_limit(folder: Path) -> Iterator[tuple[Path | None, object]]:
    """A limit on the size of files, as a quota sets it."""
    yield folder / "limited", 60_000


@contextlib.contextmanager
def mounted(where: Path, options: str) -> Iterator[Path | None]:
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True, check=False)
    try:
        yield where if done.returncode == 0 else None
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", str(where)], check=True)


def drill_disks(folder: Path) -> dict:
    """Fill the disk, or limit the size of files, after the first checkpoint: the run must end with one sentence, and keep it."""
    outcomes = {}
    with mounted(folder / "small", "size=8m") as where:
        for name, deed in {"disk full": _fill, "file size limit": _limit_file_size}.items():
            if where is None:
                outcomes[name] = "not tried: no file system can be mounted here"
                continue
            workdir = where / name.replace(" ", "_")
            overrides = ("steps=100000", "run.checkpoint_every=50", "run.log_every=50", "data.synthetic_fraction=1", "model.depth=1")
            with Pod(pretrain_command(workdir, *overrides), processes=1, devices=1, logs=folder / "logs") as pod:
                pod.start().wait_until(lambda workdir=workdir: newest(workdir) > 0, timeout=300)
                deed(where, pod.pid(0))
                statuses = pod.wait(timeout=300)
                output = pod.output(0)
            (where / "filler").unlink(missing_ok=True)
            said = [line for line in output.splitlines() if line.startswith("nutime: ")]
            right = statuses == [2] and len(said) == 1 and "Traceback" not in output and bool(intact(workdir))
            outcomes[name] = {"right": right, "statuses": statuses, "said": said, "intact": sorted(intact(workdir))}
            shutil.rmtree(workdir)
    return outcomes


def _fill(where: Path, pid: int) -> None:
    with contextlib.suppress(OSError), open(where / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _limit_file_size(where: Path, pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, 20_000))


def drill_hang(folder: Path, *, seconds: int = 12) -> dict:
    """Stop one of three processes (SIGSTOP): the watchdogs of the others must end them."""
    overrides = ("steps=100000", "batch_size=24", "run.checkpoint_every=50", "run.log_every=50", f"run.watchdog_timeout_s={seconds}")
    with Pod(pretrain_command(folder / "hung", *overrides), processes=3, devices=1, logs=folder / "logs", grace=30) as pod:
        pod.start()
        pod.wait_until(lambda: newest(folder / "hung") > 0, timeout=300)
        pod.kill(1, signum=signal.SIGSTOP)
        stopped = time.monotonic()
        pod.wait_until(lambda: bool(pod.failed), timeout=120)
        noticed = time.monotonic() - stopped
        statuses = pod.wait(timeout=120)
        said = "No step finished within" in "".join(pod.output(i) for i in range(3))
    stacks = [path.name for path in sorted((folder / "hung").glob("stacks-*.txt")) if "training/loop.py" in path.read_text()]
    figures = {"watchdog_timeout_s": seconds, "noticed_after_seconds": noticed, "statuses": statuses, "stacks": stacks, "said": said}
    return {**figures, "detected": statuses[0] == statuses[2] == HUNG and len(stacks) == 2 and said}


def assert_ended(statuses: Sequence[int], wanted: Sequence[int], pod: Pod) -> None:
    if list(statuses) != list(wanted):
        raise RuntimeError(f"A run ended with {statuses}. The log of one process ends with\n{pod.tail(pod.failed[0])}")


TESTS = ("kills", "sigterms", "slices", "slice_losses", "peers", "topology", "damage", "disks", "hang")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", default=",".join(TESTS), help="separated by commas (default: all)")
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs (default: 50)")
    parser.add_argument("--sigterms", type=int, default=40, help="SIGTERMs (default: 40)")
    parser.add_argument("--slice_signals", default="10,4", help="SIGKILLs and SIGTERMs to two slices (default: 10,4)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments; slices begin with this phase (default: 0)")
    parser.add_argument("--add", default="", help="tests whose figures are added to those in --out: kills,sigterms,slices (default: none)")
    parser.add_argument("--out", type=Path, help="file for the results, as JSON; results of tests that are not run are kept")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # not an installed version
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    draw = random.Random(args.seed)
    slice_kills, slice_sigterms = map(int, args.slice_signals.split(","))
    tests = {
        "kills": lambda folder: drill_kills(folder, kills=args.kills, steps=60 + 12 * args.kills, draw=draw),
        "sigterms": lambda folder: drill_sigterms(folder, signals=args.sigterms, steps=150 + 10 * args.sigterms, draw=draw),
        "slices": lambda folder: drill_slices(folder, kills=slice_kills, sigterms=slice_sigterms, first=args.seed, draw=draw),
        "slice_losses": drill_slice_losses,
        "peers": lambda folder: drill_peers(folder, draw=draw),
        "topology": drill_topology,
        "damage": drill_damage,
        "disks": drill_disks,
        "hang": drill_hang,
    }
    results = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{scratch}/compilations")
        for name in args.tests.split(","):
            began = time.monotonic()
            folder = Path(scratch) / name
            folder.mkdir()
            figures = tests[name](folder) | {"seconds": round(time.monotonic() - began), "portions": {machine()["commit"]: 1}}
            results[name] = added(results[name], figures) if name in results and name in args.add.split(",") else figures
            print(name, json.dumps(results[name], indent=1), flush=True)
    results["machine"] = machine("jax", "orbax-checkpoint")
    write_results(results, args.out)


if __name__ == "__main__":
    main()
