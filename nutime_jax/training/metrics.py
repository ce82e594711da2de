"""Metrics on disk: a line of JSON each, and TensorBoard events."""

import json
from pathlib import Path

from nutime_jax.errors import extra
from nutime_jax.storage import LOCAL, storage_for


class MetricWriter:
    """Writes scalars to `metrics.jsonl` and `tensorboard/` of a workdir.

    What was logged after step `start` is dropped, so that a run which resumes leaves one record of every step. Where the
    workdir is in a bucket, which cannot append, both grow on this machine, and `flush` brings them there whole.
    """

    def __init__(self, workdir: Path, *, start: int):
        with extra("train"):
            from tensorboardX import SummaryWriter

        name, place = "metrics.jsonl", storage_for(workdir)
        near = place.staging_dir(workdir)
        self._bring = lambda: place.upload(near, workdir)
        lines = place.read(workdir / name).decode(errors="replace").splitlines() if name in place.list_names(workdir) else []
        kept = [line for line in lines if _is_until(line, start)]
        LOCAL.replace(near / name, "".join(line + "\n" for line in kept).encode())
        self._file = (near / name).open("a", buffering=1)
        self._events = SummaryWriter(str(near / "tensorboard"), purge_step=start + 1, flush_secs=30)

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Records what was measured after a step."""
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        self._events.flush()
        self._bring()

    def close(self) -> None:
        self._file.close()
        self._events.close()
        self._bring()


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
