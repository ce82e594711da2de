"""Pretraining loop. It resumes from the latest checkpoint in the workdir."""

import contextlib
import importlib.metadata
import logging
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

import nutime_jax
from nutime_jax.config import DataConfig, PretrainConfig, from_dict, options, to_dict, values
from nutime_jax.core.augmentations import make_augmentation
from nutime_jax.data.columns import BY_NAME, Columns
from nutime_jax.data.corpus import Corpus, open_corpus
from nutime_jax.data.loader import source_shares
from nutime_jax.distributed.backend import use_backend
from nutime_jax.distributed.chips import chip_of
from nutime_jax.distributed.mesh import check_divisible, make_mesh, shard_tree
from nutime_jax.distributed.processes import SINGLE_PROCESS, ProcessGroup
from nutime_jax.errors import InputError, keep_log_handlers
from nutime_jax.models.network import build_encoder, check_input_lengths, check_num_window_offsets
from nutime_jax.objectives import build_network, make_objective
from nutime_jax.options import format_value
from nutime_jax.storage import is_remote, lock, resolve_path
from nutime_jax.training import hooks
from nutime_jax.training.checkpoints import (
    CheckpointManager,
    find_checkpoint,
    latest_checkpoint,
    read_arrays,
    read_metadata,
    set_newer_aside,
)
from nutime_jax.training.flops import matmul_seconds
from nutime_jax.training.input_pipeline import (
    CorpusSize,
    abstract_batch,
    choose_on_device,
    count_synthetic,
    make_input_pipeline,
    make_views,
)
from nutime_jax.training.metrics import LogMetrics, MetricWriter, NullWriter, Probe, Progress, StepTimer
from nutime_jax.training.program import build_program, learning_rate, step_matmul_flops
from nutime_jax.training.state import TrainState, encoder_variables, init_from_data, replace_encoder

log = logging.getLogger(__name__)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
"""Packages whose versions are recorded in checkpoints."""
FITTED_SERIES = 4096
"""Number of series that constants of a scalar encoder are fitted to, or those of all steps if there are fewer."""


@keep_log_handlers()
@use_backend()
def pretrain(
    config: PretrainConfig,
    workdir: str | os.PathLike,
    *,
    probe: Callable[[TrainState], dict[str, float]] | None = None,
    init_from: Any = None,
    profile: bool = False,
    devices: int | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
    columns: Columns = BY_NAME,
) -> TrainState:
    """Pretrain on all devices and return the final state, which is also the last checkpoint in the workdir.

    A workdir with a checkpoint is resumed. The result is bit for bit that of an uninterrupted run on the same devices,
    and equal up to rounding on another number of devices or processes.

    Args:
        config: see `docs/configuration.md`; `load_config` loads one.
        workdir: directory of checkpoints, metrics and, if data.dir is empty, the corpus; shared by all processes. May be
            gs://BUCKET/FOLDER, which cannot hold a corpus.
        probe: measures a state every `config.run.probe_every` steps; its result is logged. Every process calls it.
        init_from: weights that a new run starts from: an `Encoder`, or a workdir or checkpoint. Heads of the same shapes are
            read from a checkpoint; otherwise they are new, and the target network copies the encoder.
        profile: whether to write a trace of a few steps to `<workdir>/profile`.
        devices: number of devices; None uses all.
        processes: processes of the run, see `distributed.processes.initialize_distributed`.
        columns: columns of the tables of data.sources, where their names do not give their role.

    Raises:
        InputError: the configuration, the corpus or the workdir is not accepted.
        DivergenceError: the loss or the gradient is not finite, or the projections have collapsed.
        PreemptedError: SIGTERM was received, and the state is saved.
    """
    mesh = make_mesh(devices, fsdp=config.parallel.fsdp)
    check_divisible(config.batch_size, mesh, parts=config.grad_accum_steps)
    check_config(config)
    workdir = resolve_path(workdir)
    _check_storage(config, workdir, profile)
    with _lock_workdir(workdir, processes), contextlib.ExitStack() as stack:
        corpus = _open_corpus(config, workdir, processes, columns=columns)
        views = make_views(config)
        size = {"batch_size": config.batch_size, "steps": config.steps}
        # Memory may differ between processes; all have to run one program.
        on_device = processes.broadcast_from_primary(lambda: format_value(choose_on_device(config.data, corpus, mesh))) == "true"
        pipeline = make_input_pipeline(replace(config.data, on_device=on_device), corpus, mesh, **size, seed=config.seed)
        program = build_program(config, views=views, mesh=mesh)
        metadata = _checkpoint_metadata(config, corpus, init_from)
        run, folder = config.run, workdir / "checkpoints"
        newest = processes.broadcast_from_primary(partial(_find_resumable_checkpoint, folder, metadata))
        manager = CheckpointManager(
            folder,
            max_to_keep=run.max_to_keep,
            keep_period=run.keep_period,
            best_metric=run.best_metric,
            is_primary=processes.is_primary,
        )
        stack.callback(manager.close)
        if newest:
            log.info("resuming from %s", folder / newest)
            state = manager.restore(folder / newest, program.state)
        elif init_from is not None:
            state = _start_from(program.init(), init_from)
        else:
            batches = islice(pipeline.iterate(0), -(-FITTED_SERIES // config.batch_size))
            key = jax.random.fold_in(jax.random.key(config.seed), config.steps)  # steps fold in smaller numbers
            fit = {"views": views[0], "length": config.training_lengths[0], "key": key, "mesh": mesh}
            state = init_from_data(program.init(), config.model, batches, **fit)
        start = int(state.step)
        _log_start(state, corpus, config.data, mesh, processes)
        device, ideal_s = mesh.local_devices[0], _ideal_seconds(config, mesh)
        timer = StepTimer(batch_size=config.batch_size, start=start, device=device, ideal_s=ideal_s)
        calls = _make_hooks(config, workdir, stack, manager, metadata, start, probe, profile, processes, timer)
        for step, batch in enumerate(timer.iterate(pipeline.iterate(start)), start + 1):
            state, metrics = program.step(state, batch)
            for hook in calls:
                hook(step, state, metrics)
    return state


def is_finished(config: PretrainConfig, workdir: str | os.PathLike) -> bool:
    """Return whether a workdir has the last checkpoint of this run, so that `pretrain` would do nothing.

    Raises:
        InputError: the workdir belongs to another run, or the corpus cannot be opened.
    """
    workdir = resolve_path(workdir)
    newest = latest_checkpoint(workdir / "checkpoints")
    if newest is None:
        return False
    corpus, before = _open_corpus(config, workdir, SINGLE_PROCESS), read_metadata(newest)
    _check_same_run(workdir, before, _checkpoint_metadata(config, corpus, None))
    return before["step"] >= config.steps


def check_config(config: PretrainConfig) -> None:
    """Check the fields that networks and registries accept.

    Raises:
        InputError: the message names the field, its value and what is accepted.
    """
    evaluation, encoder = config.evaluation, build_encoder(config.model)
    check_input_lengths(sorted({*config.training_lengths, config.length}), encoder)
    check_input_lengths(evaluation.input_lengths or (config.length,), encoder)
    check_input_lengths(evaluation.length_buckets if 0 in evaluation.input_lengths else (), encoder)
    check_num_window_offsets(evaluation.num_window_offsets, encoder)
    make_augmentation(config.augment.transforms)
    build_network(encoder, config.objective)
    if config.grad_accum_steps > 1 and make_objective(config.objective).contrastive:
        raise InputError(
            f"grad_accum_steps is {config.grad_accum_steps}, and objective.kind {config.objective.kind!r} compares all series of a batch; "
            "set grad_accum_steps=1, and remat=full to save memory"
        )


def _ideal_seconds(config: PretrainConfig, mesh: jax.sharding.Mesh) -> float | None:
    """Return the seconds of a step at the peak of the devices, see `flops.matmul_seconds`; None for other devices."""
    chip = chip_of(mesh.devices.flat[0].device_kind)
    if chip is None:
        return None
    # The size of the corpus does not change the matmuls.
    batch = abstract_batch(config.data, mesh, batch_size=config.batch_size, size=CorpusSize(1, 1))
    return matmul_seconds(step_matmul_flops(config, mesh=mesh, batch=batch), chip)


def _open_corpus(config: PretrainConfig, workdir: Path, processes: ProcessGroup, *, columns: Columns = BY_NAME) -> Corpus | None:
    """Return the corpus, equal on every process; None if all series are synthetic."""
    data = config.data
    if count_synthetic(data, batch_size=config.batch_size) == config.batch_size:
        return None
    folder = data.dir or workdir / "data"
    corpus = open_corpus(data.sources, exclude=data.exclude, data_dir=folder, max_length=data.max_length, columns=columns)
    if processes.broadcast_from_primary(lambda: corpus.digest) != corpus.digest:
        problem = f"Process {processes.index} has a different corpus than process 0"
        raise InputError(f"{problem}. Set the same data.sources in all processes.")
    return corpus


def _find_resumable_checkpoint(folder: Path, metadata: dict[str, Any]) -> str:
    """Return the name of the newest intact checkpoint, which must be of this run; empty if none exists."""
    newest = latest_checkpoint(folder)
    if newest is None:
        return ""
    _check_same_run(folder.parent, read_metadata(newest), metadata)
    set_newer_aside(newest)
    return newest.name


def _log_start(state: TrainState, corpus: Corpus | None, data: DataConfig, mesh: jax.sharding.Mesh, processes: ProcessGroup) -> None:
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]))
    series = f"{len(corpus)} series" if corpus else "synthetic series"
    of = f" of {processes.count} processes" if processes.count > 1 else ""
    devices = f"{mesh.size} {jax.default_backend()} device(s){of}"
    log.info("%s, %d encoder parameters, %s", series, parameters, devices)
    if corpus:
        shares = source_shares(corpus, alpha=data.class_balance_alpha, weights=data.source_weights)
        log.info("samples per source: %s", ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


def _make_hooks(
    config: PretrainConfig,
    workdir: Path,
    stack: contextlib.ExitStack,
    manager: CheckpointManager,
    metadata: dict[str, Any],
    start: int,
    probe: Callable[[TrainState], dict[str, float]] | None,
    profile: bool,
    processes: ProcessGroup,
    timer: StepTimer,
) -> list[hooks.Hook]:
    """Return the hooks of a run in order: the guard precedes everything that writes."""
    run, last, batch_size, is_primary = config.run, config.steps, config.batch_size, processes.is_primary

    def closing(resource):
        return stack.enter_context(contextlib.closing(resource))

    stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
    writer = closing(MetricWriter(workdir, start=start) if is_primary else NullWriter())
    shown = {"every": run.log_every, "label": config.name, "shown": is_primary}
    traces = Path(tempfile.gettempdir() if is_remote(workdir) else workdir) / f"stacks-{processes.index}.txt"
    watchdog = closing(hooks.Watchdog(run.watchdog_timeout_s, traces, start=start))
    guard = hooks.DivergenceGuard(collapse=run.collapse_threshold, patience=run.collapse_patience, warn=log.warning)
    schedule = learning_rate(config.optim, steps=last)
    log_metrics = LogMetrics(writer, schedule=schedule, timer=timer)
    progress = closing(Progress(log_metrics, start=start, steps=last, batch_size=batch_size, **shown))
    measure = Probe(writer, probe) if probe is not None else None
    save = hooks.SaveCheckpoint(manager, writer, metadata=metadata, guard=guard, probe=measure)
    calls = [
        hooks.DispatchLimiter(),
        watchdog,
        hooks.EveryNSteps(run.log_every, last, guard),
        hooks.EveryNSteps(run.log_every, last, log_metrics),
    ]
    if measure:
        calls.append(hooks.EveryNSteps(run.probe_every, last, measure))
    calls += [
        hooks.EveryNSteps(run.checkpoint_every, last, save),
        progress,
        hooks.StopIfPreempted(processes.preempted, save, manager, start=start),
    ]
    if profile:
        if last - start < 4:
            log.warning("--profile needs at least 4 steps, %d remain: no trace is written", last - start)
        calls.append(closing(hooks.Profile(workdir / "profile", start=start)))
    return calls


def _check_storage(config: PretrainConfig, workdir: Path, profile: bool) -> None:
    """Check that files which need a local directory have one."""
    if is_remote(config.data.dir):
        raise InputError(f"data.dir is {config.data.dir}; choose a local or mounted directory for the corpus")
    if not is_remote(workdir):
        return
    if not config.data.dir and count_synthetic(config.data, batch_size=config.batch_size) < config.batch_size:
        raise InputError(f"data.dir is empty, and workdir {workdir} cannot hold a corpus; set data.dir to a local directory")
    if profile:
        raise InputError(f"a profile cannot be written to {workdir}; omit --profile, or choose a local --workdir")


def _lock_workdir(workdir: Path, processes: ProcessGroup) -> contextlib.AbstractContextManager:
    """Create the workdir and lock it: two runs would destroy each other's checkpoints. A bucket has no lock."""
    return lock(workdir) if processes.is_primary else contextlib.nullcontext()


def _checkpoint_metadata(config: PretrainConfig, corpus: Corpus | None, init_from: Any) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "config": to_dict(config),
        "corpus": corpus.digest if corpus else "synthetic",
        "init_from": None if init_from is None else str(init_from),
        "commit": _commit(),
        "versions": {"nutime_jax": nutime_jax.__version__, **versions},
    }


def _commit() -> str | None:
    """Return the commit of this code: of the file that a build wrote, otherwise of the checkout."""
    package = Path(__file__).parents[1]
    if (package / "COMMIT").exists():
        return (package / "COMMIT").read_text().strip()
    if not (package.parent / ".git").exists():
        return None
    try:
        describe = ["git", "-C", str(package), "describe", "--always", "--dirty"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _check_same_run(workdir: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that the metadata of two runs differ only in fields that may change when a run resumes.

    The corpus is compared by its digest.
    """
    old = {"corpus": before["corpus"], **values(from_dict(PretrainConfig, before["config"]))}
    new = {"corpus": now["corpus"], **values(from_dict(PretrainConfig, now["config"]))}
    may_change = {name for name, field in options(PretrainConfig).items() if field.resume}
    changed = [name for name in new if name not in may_change and old[name] != new[name]]
    if changed:
        name = changed[0]
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(
            f"workdir {workdir} belongs to another run: {name} was {old[name]!r} there and is {new[name]!r} now{others}; "
            "choose another --workdir, or --init_from this one"
        )


def _start_from(state: TrainState, source: Any) -> TrainState:
    """Return a new state with the weights of an `Encoder` or of another run; heads that do not fit stay new."""
    if hasattr(source, "variables"):
        return replace_encoder(state, source.variables)
    path, names = find_checkpoint(source), ("params", "variables", "target_params", "target_variables")
    loaded = read_arrays(path, names)
    ours = {name: getattr(state, name) for name in names}
    if jax.tree.map(np.shape, ours) != jax.tree.map(np.shape, loaded):
        log.info("starting from the encoder in %s, with new heads", path)
        return replace_encoder(state, encoder_variables(loaded))
    log.info("starting from the weights in %s", path)
    return state.replace(**shard_tree(loaded, jax.tree.map(lambda leaf: leaf.sharding, ours)))
