"""Print the state of a run: step, throughput, time left, newest checkpoint, last probe.

    nutime status runs/quickstart
    nutime status gs://BUCKET/base --json

The values are those of metrics.jsonl and of the newest checkpoint; in a bucket both are as old as that checkpoint. The time left
assumes the last throughput.
"""

import argparse
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from nutime_jax.cli.arguments import run_path
from nutime_jax.errors import InputError
from nutime_jax.storage import access_errors, error_summary, list_names, read_regular

METRICS = "metrics.jsonl"
MAX_BYTES = 1 << 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", type=run_path, metavar="WORKDIR", help="workdir of `nutime pretrain`, or gs://BUCKET/FOLDER")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    status = read_status(args.workdir)
    print(json.dumps(status) if args.json else _describe(status))


def read_status(workdir: Path) -> dict[str, Any]:
    """Return the state of a run; values that are not known yet are None.

    Raises:
        InputError: the folder is not a workdir, or its files cannot be read.
    """
    try:
        exists = METRICS in list_names(workdir)
        lines = read_regular(workdir / METRICS, max_bytes=MAX_BYTES).decode(errors="replace").splitlines() if exists else []
        checkpoints = [workdir / "checkpoints" / name for name in list_names(workdir / "checkpoints") if name.isdecimal()]
        checkpoints = [path for path in checkpoints if "about.json" in list_names(path)]
        newest = max(checkpoints, key=lambda path: int(path.name), default=None)
        metadata = json.loads(read_regular(newest / "about.json", max_bytes=MAX_BYTES)) if newest else {}
    except access_errors(workdir) as error:
        raise InputError(f"{workdir} cannot be read ({error_summary(error)}); pass the workdir of `nutime pretrain`") from error
    if not lines and not checkpoints:
        raise InputError(f"{workdir} has no metrics and no checkpoint; pass the workdir of `nutime pretrain`")
    metrics, probe = {}, {}
    for line in lines:
        values = _parse(line)
        metrics = values if "loss" in values else metrics
        probe = values if "probe_accuracy" in values else probe
    config = metadata.get("config", {})
    step, steps, rate = metrics.get("step", metadata.get("step")), config.get("steps"), metrics.get("series_per_second")
    left = (steps - step) * config["batch_size"] / rate if steps and rate else None
    return {
        "workdir": str(workdir),
        "step": step,
        "steps": steps,
        "loss": metrics.get("loss"),
        "learning_rate": metrics.get("learning_rate"),
        "series_per_second": rate,
        "seconds_left": left,
        "seconds_since_update": time.time() - (workdir / METRICS).stat().st_mtime if lines and isinstance(workdir, Path) else None,
        "checkpoint_step": metadata.get("step"),
        "probe_step": probe.get("step"),
        "probe_accuracy": probe.get("probe_accuracy"),
    }


def _parse(line: str) -> dict[str, Any]:
    """Return the values of a line; the last line of a running job may be incomplete."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def _describe(status: dict[str, Any]) -> str:
    steps = f" of {status['steps']:,} ({status['step'] / status['steps']:.0%})" if status["steps"] else ""
    lines = [f"step        {status['step']:,}{steps}"]
    if status["series_per_second"] is not None:
        lines.append(f"loss        {status['loss']:.5f}, learning rate {status['learning_rate']:.3g}")
        lines.append(f"throughput  {status['series_per_second']:,.0f} series per second")
    if status["seconds_left"] is not None:
        lines.append(f"time left   {timedelta(seconds=round(status['seconds_left']))}")
    if status["seconds_since_update"] is not None:
        lines.append(f"updated     {timedelta(seconds=round(status['seconds_since_update']))} ago")
    if status["checkpoint_step"] is not None:
        lines.append(f"checkpoint  step {status['checkpoint_step']:,}")
    if status["probe_accuracy"] is not None:
        lines.append(f"probe       {100 * status['probe_accuracy']:.1f} % at step {status['probe_step']:,}")
    return "\n".join(lines)
