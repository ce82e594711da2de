"""Actions around the updates: each hook is called with (step, state, metrics) after every step."""

import collections
import contextlib
import faulthandler
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from nutime_jax.errors import DivergenceError, InputError, LostProcessError, PreemptedError, extra
from nutime_jax.progress import ProgressBar
from nutime_jax.storage import access_errors, error_summary, is_remote, list_names, read_regular, write_bytes
from nutime_jax.training.checkpoints import CheckpointManager
from nutime_jax.training.state import TrainState
from nutime_jax.training.step import Metrics

with extra("train"):
    import optax


METRICS, MAX_METRICS_BYTES = "metrics.jsonl", 1 << 32


class Hook(Protocol):
    """Called after every step."""

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None: ...


class MetricWriter:
    """Writer of scalars to `metrics.jsonl` and `tensorboard/` of a workdir.

    Lines after step `start` are dropped, so that a resumed run has one record per step. A bucket has no append: there both
    grow locally, and `flush` uploads them.
    """

    def __init__(self, workdir: Path, *, start: int):
        with extra("train"):
            from tensorboardX import SummaryWriter

        self._workdir, self._scratch = workdir, tempfile.TemporaryDirectory(prefix="nutime-")
        self._near = Path(self._scratch.name) if is_remote(workdir) else workdir
        exists = METRICS in list_names(workdir)
        lines = read_regular(workdir / METRICS, max_bytes=MAX_METRICS_BYTES).decode(errors="replace").splitlines() if exists else []
        lines = [line + "\n" for line in lines if _is_until(line, start)]
        write_bytes(self._near / METRICS, "".join(lines).encode())
        self._file = (self._near / METRICS).open("a", buffering=1)
        self._events = SummaryWriter(str(self._near / "tensorboard"), purge_step=start + 1, flush_secs=30)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Record values measured after a step."""
        with self._as_input_error():
            self._file.write(json.dumps({"step": step, **scalars}) + "\n")
            for name, value in scalars.items():
                self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        with self._as_input_error():
            self._events.flush()
            self._upload()

    def close(self) -> None:
        with self._as_input_error():
            self._file.close()
            self._events.close()
            self._upload()
            self._scratch.cleanup()

    def _upload(self) -> None:
        if is_remote(self._workdir):
            for path in self._near.rglob("*"):
                if path.is_file():
                    write_bytes(self._workdir / path.relative_to(self._near), path.read_bytes())

    @contextlib.contextmanager
    def _as_input_error(self) -> Iterator[None]:
        try:
            yield
        except access_errors(self._workdir) as error:
            advice = "free disk space or fix the permissions, and rerun the same command"
            raise InputError(f"metrics cannot be written to {self._workdir} ({error_summary(error)}); {advice}") from error


class NullWriter:
    """Writer of the processes that write no metrics."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


Writer = MetricWriter | NullWriter


def _is_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, TypeError, KeyError, RecursionError):  # an incomplete line after a kill, or other JSON
        return False


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


TIMINGS = ("series_per_second", "step_ms", "input_wait_ms", "mfu", "device_memory_gb")
"""Metrics that differ between equal runs, see `StepTimer.report`."""


class StepTimer:
    """Timer of the steps between two reports.

    batch_size: series per step.
    ideal_s: seconds of a step at the peak of the devices; None if that is not known.
    device: device whose memory is reported, if it reports it.
    """

    def __init__(self, *, batch_size: int, start: int, device: jax.Device, ideal_s: float | None = None):
        self._batch_size, self._ideal_s, self._device = batch_size, ideal_s, device
        self._step, self._time, self._waited_s = start, time.monotonic(), 0.0

    def iterate(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches, and add up the time of waiting for them."""
        batches = iter(batches)
        while True:
            begun = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited_s += time.monotonic() - begun
            yield batch

    def report(self, step: int) -> dict[str, float]:
        """Return means over the steps since the last report.

        series_per_second, step_ms: throughput, and time per step. input_wait_ms: part of it in which the loop waited for a
        batch; up to two steps are queued on the devices meanwhile. mfu: matmuls at peak as a fraction of the step.
        device_memory_gb: largest memory in use so far on one device.
        """
        now, steps = time.monotonic(), max(step - self._step, 1)
        step_s = (now - self._time) / steps
        timings = {
            "series_per_second": self._batch_size / step_s,
            "step_ms": 1e3 * step_s,
            "input_wait_ms": 1e3 * self._waited_s / steps,
        }
        if self._ideal_s is not None:
            timings["mfu"] = self._ideal_s / step_s
        if memory := self._device.memory_stats():
            timings["device_memory_gb"] = memory["peak_bytes_in_use"] / 1e9
        self._step, self._time, self._waited_s = step, now, 0.0
        return timings


class LogMetrics:
    """Write the metrics, the learning rate, and the timings since the last call; `latest` has the last values."""

    def __init__(self, writer: Writer, *, schedule: optax.Schedule, timer: StepTimer):
        self._writer, self._schedule, self._timer = writer, schedule, timer
        self.latest: dict[str, float] = {}

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        values["learning_rate"] = float(self._schedule(step - 1))
        self.latest = values | self._timer.report(step)
        self._writer.write(step, self.latest)


class Progress:
    """Progress of the steps: a bar on a terminal, elsewhere a line every `every` steps, with the latest logged metrics."""

    def __init__(self, logged: LogMetrics, *, start: int, steps: int, batch_size: int, every: int, label: str, shown: bool):
        self._logged, self._batch_size, self._every, self._steps, self._step = logged, batch_size, every, steps, start
        self.bar = ProgressBar(
            total=steps * batch_size,
            initial=start * batch_size,
            desc=label,
            unit=" series",
            unit_scale=True,
            postfix="compiling" if start < steps else "",
            line_seconds=0,
            miniters=0,
            disable=not shown,
        )

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        due = step % self._every == 0 or step == self._steps
        if due or not self._logged.latest:  # "compiling" is over
            self.bar.set_postfix_str(_format_metrics(step, self._logged.latest), refresh=False)
        if due or self.bar.on_terminal:
            self.bar.update((step - self._step) * self._batch_size)
            self._step = step

    def close(self) -> None:
        self.bar.close()


def _format_metrics(step: int, values: dict[str, float]) -> str:
    parts = [f"step {step}"]
    if values:
        parts += [f"loss {values['loss']:.5f}", f"lr {values['learning_rate']:.3g}", f"projection std {values['projection_std']:.2f}"]
    if "mfu" in values:
        parts.append(f"MFU {100 * values['mfu']:.1f} %")
    if values.get("input_wait_ms", 0) > values.get("step_ms", 0) / 10:
        parts.append(f"input wait {values['input_wait_ms']:.0f} of {values['step_ms']:.0f} ms")
    return ", ".join(parts)


class SaveCheckpoint:
    """Save a checkpoint, after flushing the metrics up to it. A step is saved once, a collapsed state never."""

    def __init__(
        self,
        manager: CheckpointManager,
        writer: Writer,
        *,
        metadata: dict[str, Any],
        guard: DivergenceGuard,
        probe: "Probe | None",
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


class Probe:
    """Write the metrics of an injected evaluation of the state."""

    def __init__(self, writer: Writer, evaluate: Callable[[TrainState], dict[str, float]]):
        self._writer, self._evaluate = writer, evaluate
        self._step, self._metrics = -1, {}

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._step, self._metrics = step, self._evaluate(state)
        self._writer.write(step, self._metrics)

    def metrics_at(self, step: int) -> dict[str, float]:
        """Return the metrics measured after this step; empty if none were."""
        return self._metrics if step == self._step else {}


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
