"""What happens beside the updates: each hook is called with (step, state, metrics) after every step."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
import optax
from tqdm import tqdm

from nutime_jax.errors import DivergenceError
from nutime_jax.train.checkpoint import CheckpointStore
from nutime_jax.train.state import TrainState
from nutime_jax.train.step import Metrics
from nutime_jax.train.writers import MetricWriter


class Hook(Protocol):
    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None: ...


class Every:
    """Calls a hook every `every` steps and at the last step; never when `every` is 0."""

    def __init__(self, every: int, last: int, hook: Hook):
        self._every, self._last, self._hook = every, last, hook

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if self._every and (step % self._every == 0 or step == self._last):
            self._hook(step, state, metrics)


class StopIfNotFinite:
    """Stops the run before anything is written when the loss or the gradient is NaN or infinite."""

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        for name in ("loss", "gradient"):
            value = float(metrics[name])
            if not np.isfinite(value):
                raise DivergenceError(
                    f"the {name} is {value} at step {step}; the last checkpoint is from before it. "
                    "Lower optim.rate or lengthen optim.warmup_steps, and start again in a new workdir with --init_from"
                )


class Log:
    """Writes the metrics, the learning rate and the throughput since the last call; warns when projections collapse."""

    COLLAPSE = 0.01

    def __init__(self, writer: MetricWriter, *, schedule: optax.Schedule, batch_size: int, start: int, warn: Callable[[str], None]):
        self._writer, self._schedule, self._batch_size, self._warn = writer, schedule, batch_size, warn
        self._step, self._time = start, time.monotonic()

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        now = time.monotonic()
        rate = (step - self._step) * self._batch_size / (now - self._time)
        self._step, self._time = step, now
        if values["spread"] < self.COLLAPSE:
            self._warn(f"step {step}: the projections have collapsed (spread {values['spread']:.4f}, 1 is even); lower optim.rate")
        learning_rate = float(self._schedule(step - 1))
        self._writer.write(step, {**values, "learning_rate": learning_rate, "series_per_second": rate})


class Progress:
    """A bar with loss, series per second and remaining time; on a terminal it moves, elsewhere it is a line now and then."""

    def __init__(self, *, start: int, steps: int, batch_size: int, every: int, label: str):
        self._batch_size, self._every = batch_size, every
        self.bar = tqdm(
            total=steps * batch_size,
            initial=start * batch_size,
            desc=label,
            unit=" series",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        if step % self._every == 0:
            self.bar.set_postfix_str(f"loss {float(metrics['loss']):.5f} spread {float(metrics['spread']):.2f}", refresh=False)
        self.bar.update(self._batch_size)

    def close(self) -> None:
        self.bar.close()


class Save:
    """Writes a checkpoint, and before it what was logged until then: a run that resumes does not log it again."""

    def __init__(self, store: CheckpointStore, about: dict, writer: MetricWriter):
        self._store, self._about, self._writer = store, about, writer

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._writer.flush()
        self._store.save(state, step=step, about=self._about)


class Probe:
    """Writes what an injected evaluation says of the state: the loop itself knows nothing of evaluation."""

    def __init__(self, writer: MetricWriter, evaluate: Callable[[TrainState], dict[str, float]]):
        self._writer, self._evaluate = writer, evaluate

    def __call__(self, step: int, state: TrainState, metrics: Metrics) -> None:
        self._writer.write(step, self._evaluate(state))


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
