"""Metrics on disk: a line of JSON each, and TensorBoard events."""

import json
import os
from pathlib import Path


class MetricWriter:
    """Writes scalars to `metrics.jsonl` and `tensorboard/` of a workdir.

    What was logged after step `start` is dropped, so that a run which resumes leaves one record of every step.
    """

    def __init__(self, workdir: Path, *, start: int):
        from tensorboardX import SummaryWriter

        self._path = workdir / "metrics.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in lines if _is_until(line, start)]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept))
        os.replace(temporary, self._path)
        self._file = self._path.open("a", buffering=1)
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1, flush_secs=30)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Records what was measured after a step."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._file.close()
        self._events.close()


class NoWriter:
    """The writer of the processes that write nothing."""

    def write(self, step: int, scalars: dict[str, float]) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _is_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except ValueError:  # the line that a kill has cut
        return False
