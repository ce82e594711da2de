"""Metrics of a run: their files, timings, progress and probes."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from nutime_jax.errors import InputError, extra
from nutime_jax.progress import ProgressBar
from nutime_jax.storage import access_errors, error_summary, is_remote, list_names, read_regular, write_bytes
from nutime_jax.training.state import TrainState
from nutime_jax.training.step import Metrics

with extra("train"):
    import optax

METRICS, MAX_METRICS_BYTES = "metrics.jsonl", 1 << 32


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
