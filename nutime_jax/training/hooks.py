"""Actions around the updates: each hook is called with (step, state, metrics) after every step."""

import collections
import contextlib
import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from nutime_jax.errors import DivergenceError, LostProcessError, PreemptedError
from nutime_jax.training.checkpoints import CheckpointManager
from nutime_jax.training.metrics import Probe, Writer
from nutime_jax.training.state import TrainState
from nutime_jax.training.step import Metrics


class Hook(Protocol):
    """Called after every step."""

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None: ...


class EveryNSteps:
    """Call a hook every `every` steps and at the last step; never if `every` is 0."""

    def __init__(self, every: int, last: int, hook: Hook):
        self._every, self._last, self._hook = every, last, hook

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if self._every and (step % self._every == 0 or step == self._last):
            self._hook(step, state, metrics)


class DispatchLimiter:
    """Keep the host at most `ahead` steps ahead of the devices, so that batches do not pile up."""

    def __init__(self, *, ahead: int = 2):
        self._running: collections.deque[Metrics] = collections.deque()
        self._ahead = ahead

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._running.append(metrics)
        if len(self._running) > self._ahead:
            jax.block_until_ready(self._running.popleft())


class DivergenceGuard:
    """Stop the run when loss or gradient is not finite, or after `patience` checks in a row with collapsed projections.

    It is called before anything is written, so that the last checkpoint precedes the divergence.
    """

    def __init__(self, *, collapse: float, patience: int, warn: Callable[[str], None]):
        self._collapse, self._patience, self._warn = collapse, patience, warn
        self._collapsed_steps: list[int] = []

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        for name in ("loss", "grad_norm"):
            value = float(metrics[name])
            if not np.isfinite(value):
                raise DivergenceError(
                    f"{name} is {value} at step {step}; the last checkpoint precedes it. "
                    "Lower optim.lr or raise optim.warmup_steps, and start in a new workdir with --init_from"
                )
        if not self.collapsed(metrics):
            self._collapsed_steps = []
        elif step not in self._collapsed_steps:
            self._collapsed_steps.append(step)
            std = float(metrics["projection_std"])
            collapse = f"Representation collapse: projection std is {std:.4f} (1.0 = uniform on the sphere)"
            if len(self._collapsed_steps) >= self._patience:
                raise DivergenceError(
                    f"{collapse} since step {self._collapsed_steps[0]}; the last checkpoint precedes it. Lower optim.lr, "
                    "raise objective.momentum or batch_size, and start in a new workdir; run.collapse_threshold=0 "
                    "disables this check"
                )
            self._warn(f"step {step}: {collapse}; no checkpoint is written meanwhile")

    def collapsed(self, metrics: Metrics) -> bool:
        """Whether the projections have collapsed; such a state is not saved."""
        return float(metrics["projection_std"]) < self._collapse


class SaveCheckpoint:
    """Save a checkpoint, after flushing the metrics up to it. A step is saved once, a collapsed state never."""

    def __init__(
        self,
        manager: CheckpointManager,
        writer: Writer,
        *,
        metadata: dict[str, Any],
        guard: DivergenceGuard,
        probe: Probe | None,
    ):
        self._manager, self._writer, self._metadata = manager, writer, metadata
        self._guard, self._probe = guard, probe
        self.saved_step = -1

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._guard(step, state, metrics)
        if step == self.saved_step or self._guard.collapsed(metrics):
            return
        self.saved_step = step
        self._writer.flush()
        measured = {name: float(value) for name, value in metrics.items()}
        if self._probe:
            measured |= self._probe.metrics_at(step)
        self._manager.save(state, step=step, metadata={**self._metadata, "metrics": measured})


class StopIfPreempted:
    """Save the state and stop the run after a preemption notice; all processes do, after the same step.

    Steps are counted from the start of the processes, see `ProcessGroup.preempted`: a notice that arrives before the first
    step of a resumed run then stops it after that step.
    """

    def __init__(self, preempted: Callable[[int], bool], save: SaveCheckpoint, manager: CheckpointManager, *, start: int):
        self._preempted, self._save, self._manager, self._start = preempted, save, manager, start

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if self._preempted(step - self._start):
            self._save(step, state, metrics)
            self._manager.wait()
            saved = self._save.saved_step == step
            outcome = f"saved a checkpoint at step {step}" if saved else f"step {step} has collapsed and is not saved"
            raise PreemptedError(f"Received SIGTERM; {outcome}. Rerun the same command to resume.")


class Watchdog:
    """Terminate a process that hangs, and write the stack traces of all threads.

    It runs in a thread of its own. The other processes of a run have watchdogs of their own.

    timeout_s: longer than any step or probe; the first step, which is compiled, has 10 times as long. 0 is never.
    path: local file for the stack traces, in addition to standard error.
    """

    def __init__(self, timeout_s: float, path: Path, *, start: int):
        self._timeout_s, self._path, self._step = timeout_s, path, start
        self._beat, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        if timeout_s:
            self._thread.start()

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._step = step
        self._beat.set()

    def close(self) -> None:
        self._closed = True
        self._beat.set()

    def _watch(self) -> None:
        limit, armed = 10 * self._timeout_s, -math.inf
        faulthandler.dump_traceback_later(2 * limit, exit=True, file=sys.__stderr__)  # should this thread never get the GIL
        while self._beat.wait(limit):
            if self._closed:
                faulthandler.cancel_dump_traceback_later()
                return
            self._beat.clear()
            limit = self._timeout_s
            if time.monotonic() - armed > limit / 2:
                faulthandler.dump_traceback_later(2 * limit, exit=True, file=sys.__stderr__)
                armed = time.monotonic()
        faulthandler.cancel_dump_traceback_later()
        faulthandler.dump_traceback(all_threads=True)
        where = ""
        with contextlib.suppress(OSError), open(self._path, "w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            where = f" Stack traces: {self._path}."
        print(
            f"nutime: No step finished within {limit:g} s after step {self._step}; exiting.{where} "
            "Rerun the same command to resume, or raise run.watchdog_timeout_s.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(LostProcessError.STATUS)


class Profile:
    """Write a trace of `steps` steps after the first `skip`, which include compilation."""

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
