"""What happens beside the updates: each hook is called with (step, state, metrics) after every step."""

import collections
import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from nutime_jax.errors import DivergenceError, PreemptedError, extra
from nutime_jax.progress import ProgressBar
from nutime_jax.training.checkpoints import CheckpointStore
from nutime_jax.training.metrics import MetricWriter, NoWriter
from nutime_jax.training.state import TrainState
from nutime_jax.training.step import Metrics

with extra("train"):
    import optax

Writer = MetricWriter | NoWriter


class Hook(Protocol):
    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None: ...


class Every:
    """Calls a hook every `every` steps and at the last step; never when `every` is 0."""

    def __init__(self, every: int, last: int, hook: Hook):
        self._every, self._last, self._hook = every, last, hook

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if self._every and (step % self._every == 0 or step == self._last):
            self._hook(step, state, metrics)


class Pace:
    """Keeps the host at most `ahead` steps before the devices: batches do not pile up, and a step that is told has ended, nearly."""

    def __init__(self, *, ahead: int = 2):
        self._begun: collections.deque[Metrics] = collections.deque()
        self._ahead = ahead

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._begun.append(metrics)
        if len(self._begun) > self._ahead:
            jax.block_until_ready(self._begun.popleft())


class Guard:
    """Stops the run when the loss or the gradient is not finite, or the projections have collapsed `patience` times in a row.

    It is asked before anything is written, so the last checkpoint is always from before.
    """

    def __init__(self, *, collapse: float, patience: int, warn: Callable[[str], None]):
        self._collapse, self._patience, self._warn = collapse, patience, warn
        self._seen: list[int] = []

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        for name in ("loss", "grad_norm"):
            value = float(metrics[name])
            if not np.isfinite(value):
                raise DivergenceError(
                    f"the {name} is {value} at step {step}; the last checkpoint is from before it. "
                    "Lower optim.lr or lengthen optim.warmup_steps, and start again in a new workdir with --init_from"
                )
        if not self.collapsed(metrics):
            self._seen = []
        elif step not in self._seen:
            self._seen.append(step)
            said = f"the projections have collapsed (projection std {float(metrics['projection_std']):.4f}, 1 is even)"
            if len(self._seen) >= self._patience:
                raise DivergenceError(
                    f"{said} since step {self._seen[0]}; the last checkpoint is from before it. Lower optim.lr, raise "
                    "objective.momentum or batch_size, and start again in a new workdir (run.collapse_threshold=0 lets it go on)"
                )
            self._warn(f"step {step}: {said}; no checkpoint is written meanwhile")

    def collapsed(self, metrics: Metrics) -> bool:
        """Whether a state is not worth keeping."""
        return float(metrics["projection_std"]) < self._collapse


class Log:
    """Writes the metrics, the learning rate and the throughput since the last call."""

    def __init__(self, writer: Writer, *, schedule: optax.Schedule, batch_size: int, start: int):
        self._writer, self._schedule, self._batch_size = writer, schedule, batch_size
        self._step, self._time = start, time.monotonic()

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        now = time.monotonic()
        rate = (step - self._step) * self._batch_size / (now - self._time)
        self._step, self._time = step, now
        learning_rate = float(self._schedule(step - 1))
        self._writer.write(step, {**values, "learning_rate": learning_rate, "series_per_second": rate})


class Progress:
    """A bar with loss, series per second and remaining time; on a terminal it moves, elsewhere it is a line now and then."""

    def __init__(self, *, start: int, steps: int, batch_size: int, every: int, label: str, shown: bool):
        self._batch_size, self._every = batch_size, every
        self.bar = ProgressBar(
            total=steps * batch_size,
            initial=start * batch_size,
            desc=label,
            unit=" series",
            unit_scale=True,
            disable=not shown,
        )

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if step % self._every == 0:
            self.bar.set_postfix_str(
                f"step {step} loss {float(metrics['loss']):.5f} projection std {float(metrics['projection_std']):.2f}", refresh=False
            )
        self.bar.update(self._batch_size)

    def close(self) -> None:
        self.bar.close()


class Save:
    """Saves a checkpoint, and before it what was logged until then: a run that resumes does not log it again.

    A step is saved once; a collapsed state never.
    """

    def __init__(self, store: CheckpointStore, writer: Writer, *, about: dict, guard: Guard, probed: "Probe | None"):
        self._store, self._writer, self._about, self._guard, self._probed = store, writer, about, guard, probed
        self._saved = -1

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._guard(step, state, metrics)
        if step == self._saved or self._guard.collapsed(metrics):
            return
        self._saved = step
        self._writer.flush()
        measured = {name: float(value) for name, value in metrics.items()} | (self._probed.at(step) if self._probed else {})
        self._store.save(state, step=step, about={**self._about, "metrics": measured})


class StopIfPreempted:
    """Saves the state and ends the run when the machine is about to be taken away; all processes do, after the same step."""

    def __init__(self, preempted: Callable[[int], bool], save: Save, store: CheckpointStore):
        self._preempted, self._save, self._store = preempted, save, store

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if self._preempted(step):
            self._save(step, state, metrics)
            self._store.wait()
            raise PreemptedError(f"told to stop after step {step}; the state is saved, and the same command goes on from it")


class Probe:
    """Writes what an injected evaluation says of the state: the loop itself knows nothing of evaluation."""

    def __init__(self, writer: Writer, evaluate: Callable[[TrainState], dict[str, float]]):
        self._writer, self._evaluate = writer, evaluate
        self._step, self._measured = -1, {}

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._step, self._measured = step, self._evaluate(state)
        self._writer.write(step, self._measured)

    def at(self, step: int) -> dict[str, float]:
        """What was measured after this very step, if anything was."""
        return self._measured if step == self._step else {}


class Watchdog:
    """Ends the process when no step ends for so long that it must hang, and says where every thread stood.

    A thread of its own looks after the others: what hangs cannot end itself. The other processes of a run notice by
    the silence, with watchdogs of their own.

    seconds: longer than any step or probe takes; the first step, which is compiled, has ten times as long. 0 is never.
    path: where the stacks are written, beside standard error: on this machine, since a network may be what hangs.
    """

    STATUS = 4

    def __init__(self, seconds: float, path: Path, *, start: int):
        self._seconds, self._path, self._step = seconds, path, start
        self._beat, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if seconds:
            self._thread.start()

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._step = step
        self._beat.set()

    def close(self) -> None:
        self._ended = True
        self._beat.set()

    def _watch(self) -> None:
        limit = 10 * self._seconds
        while self._beat.wait(limit):
            if self._ended:
                return
            self._beat.clear()
            limit = self._seconds
        faulthandler.dump_traceback(all_threads=True)
        where = ""
        with contextlib.suppress(OSError), open(self._path, "w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            where = f"; the stacks are in {self._path}"
        print(
            f"nutime: no step ended for {limit:g} s after step {self._step}, so this run is stopped{where}. "
            "The same command goes on from the last checkpoint; if the time is too short, raise run.watchdog_timeout_s",
            file=sys.stderr,
            flush=True,
        )
        os._exit(self.STATUS)


class Profile:
    """Writes a trace of `steps` steps after the first `skip`, in which the step is compiled; of fewer in a shorter run."""

    def __init__(self, folder: Path, *, start: int, skip: int = 3, steps: int = 5):
        self._folder, self._first, self._last = folder, start + skip, start + skip + steps
        self._running = False

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step == self._last:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
