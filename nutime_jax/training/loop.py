"""Pretraining: from a configuration and a workdir to a trained state; started again, it goes on where it was."""

import contextlib
import importlib.metadata
import logging
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

import nutime_jax
from nutime_jax.config import PretrainConfig, from_dict, options, to_dict, values
from nutime_jax.core.augmentations import make_augmentation
from nutime_jax.data.corpus import Corpus, open_corpus
from nutime_jax.distributed.mesh import check_divisible, make_mesh, place
from nutime_jax.distributed.processes import Processes
from nutime_jax.errors import InputError
from nutime_jax.models.network import build_encoder, check_input_lengths, check_num_window_offsets
from nutime_jax.storage import resolve_path, storage_for
from nutime_jax.training import hooks
from nutime_jax.training.checkpoints import CheckpointStore, find_checkpoint, latest, read_about, read_arrays
from nutime_jax.training.data_dependent_init import fit_scalars
from nutime_jax.training.input_pipeline import make_feed, synthetic_rows
from nutime_jax.training.metrics import MetricWriter, NoWriter
from nutime_jax.training.optim import learning_rate
from nutime_jax.training.program import build_program
from nutime_jax.training.state import TrainState, build_network

log = logging.getLogger(__name__)

ALONE = Processes()
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def pretrain(
    config: PretrainConfig,
    workdir: str | os.PathLike,
    *,
    probe: Callable[[TrainState], dict[str, float]] | None = None,
    init_from: str | os.PathLike | None = None,
    profile: bool = False,
    devices: int | None = None,
    processes: Processes = ALONE,
) -> TrainState:
    """Pretrains on all devices and returns the final state, which is also the last checkpoint in the workdir.

    A workdir that holds a checkpoint is resumed, bit for bit as if it had never stopped (same machines, same devices; on
    another number of either, up to rounding).

    Args:
        config: see `docs/configuration.md`; `load_config` loads one.
        workdir: where checkpoints, metrics and (unless config.data.dir says otherwise) the corpus go; one folder for all
            processes, or gs://BUCKET/FOLDER, where no corpus can be.
        probe: measures a state every `config.run.probe_every` steps; what it returns is logged. Every process calls it.
        init_from: workdir or checkpoint whose weights the run starts from, when it does not resume.
        profile: write a trace of a few steps to `<workdir>/profile`.
        devices: how many devices to use; None takes all.
        processes: those of the run, see `processes.join_processes`.

    Raises:
        InputError: the configuration, the corpus or the workdir will not do; the message says which and why.
        DivergenceError: the loss or the gradient is no longer finite, or the projections have collapsed.
        PreemptedError: the processes were told to stop, and the state is saved.
    """
    mesh = make_mesh(devices, fsdp=config.parallel.fsdp)
    check_divisible(config.batch_size, mesh, parts=config.grad_accum_steps)
    check_config(config)
    workdir = resolve_path(workdir)
    _check_reach(config, workdir, profile)
    with _own(workdir, processes), contextlib.ExitStack() as stack:
        corpus = _open_corpus(config, workdir, processes)
        feed = make_feed(config, corpus, mesh)
        program = build_program(config, views=feed.views, mesh=mesh)
        about = _about(config, corpus.digest if corpus else "synthetic", init_from)
        run = config.run
        store = CheckpointStore(
            workdir / "checkpoints",
            max_to_keep=run.max_to_keep,
            keep_period=run.keep_period,
            best_metric=run.best_metric,
            first=processes.first,
        )
        stack.callback(store.close)
        newest = processes.agree(partial(_find_own, store, workdir, about))
        if newest:
            log.info("resuming from %s", store.directory / newest)
            state = store.restore(store.directory / newest, program.state)
        else:
            state = program.init()
            state = fit_scalars(state, config, feed, mesh) if init_from is None else _initialise(state, find_checkpoint(init_from))
        start = int(state.step)
        size = sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]))
        series = f"{len(corpus)} series" if corpus else "synthetic series"
        share = f" of {processes.count} processes" if processes.count > 1 else ""
        log.info("%s, %d encoder parameters, %d %s device(s)%s", series, size, mesh.size, jax.default_backend(), share)

        calls = _hooks(config, workdir, stack, store, about=about, start=start, probe=probe, profile=profile, processes=processes)
        for step, batch in enumerate(feed.batches(start), start + 1):
            state, metrics = program.step(state, batch)
            for hook in calls:
                hook(step, state, metrics)
    return state


def is_finished(config: PretrainConfig, workdir: str | os.PathLike) -> bool:
    """Whether a workdir holds the last checkpoint of this very run, so that `pretrain` would have nothing left to do.

    Raises:
        InputError: the workdir belongs to another run, or the corpus cannot be opened.
    """
    workdir = resolve_path(workdir)
    newest = latest(workdir / "checkpoints")
    if newest is None:
        return False
    corpus, begun = _open_corpus(config, workdir, ALONE), read_about(newest)
    _check_same_run(workdir, begun, _about(config, corpus.digest if corpus else "synthetic", None))
    return begun["step"] >= config.steps


def _open_corpus(config: PretrainConfig, workdir: Path, processes: Processes) -> Corpus | None:
    """The corpus of a run, the same for every process; None if all its series are synthetic."""
    data = config.data
    if synthetic_rows(config) == config.batch_size:
        return None
    corpus = open_corpus(data.sources, exclude=data.exclude, data_dir=data.dir or workdir / "data", max_length=data.max_length)
    if processes.agree(lambda: corpus.digest) != corpus.digest:
        raise InputError(f"process {processes.index} reads another corpus than the first one; give all of them the same data.sources")
    return corpus


def _find_own(store: CheckpointStore, workdir: Path, about: dict[str, Any]) -> str:
    """Name of the newest intact checkpoint, which has to be of this very run; empty if there is none."""
    newest = latest(store.directory)
    if newest is None:
        return ""
    _check_same_run(workdir, read_about(newest), about)
    return newest.name


def _hooks(config, workdir, stack, store, *, about, start, probe, profile, processes) -> list[hooks.Hook]:
    """The hooks of a run, in order: nothing is written of a step that is not finite."""
    run, last = config.run, config.steps
    stack.enter_context(logging_redirect_tqdm([logging.getLogger()]))
    writer = stack.enter_context(contextlib.closing(MetricWriter(workdir, start=start) if processes.first else NoWriter()))
    progress = hooks.Progress(
        start=start, steps=last, batch_size=config.batch_size, every=run.log_every, label=config.name, shown=processes.first
    )
    stack.enter_context(contextlib.closing(progress))
    stacks = storage_for(workdir).staging_dir(workdir) / f"stacks-{processes.index}.txt"
    watchdog = stack.enter_context(contextlib.closing(hooks.Watchdog(run.watchdog_timeout_s, stacks, start=start)))
    guard = hooks.Guard(collapse=run.collapse_threshold, patience=run.collapse_patience, warn=log.warning)
    record = hooks.Log(writer, schedule=learning_rate(config.optim, steps=last), batch_size=config.batch_size, start=start)
    measure = hooks.Probe(writer, probe) if probe is not None else None
    save = hooks.Save(store, writer, about=about, guard=guard, probed=measure)
    calls: list[hooks.Hook] = [
        hooks.Pace(),
        watchdog,
        hooks.Every(run.log_every, last, guard),
        hooks.Every(run.log_every, last, record),
        *([hooks.Every(run.probe_every, last, measure)] if measure else []),
        hooks.Every(run.checkpoint_every, last, save),
        progress,
        hooks.StopIfPreempted(processes.preempted, save, store),
    ]
    if profile:
        if last - start < 4:
            log.warning("--profile needs 4 steps or more, %d are left: no trace is written", last - start)
        calls.append(stack.enter_context(contextlib.closing(hooks.Profile(workdir / "profile", start=start))))
    return calls


def check_config(config: PretrainConfig) -> None:
    """Check what the schema leaves to networks and registries.

    Raises:
        InputError: the message names the field, its value and what is accepted.
    """
    evaluation, network = config.evaluation, build_encoder(config.model)
    network.count_tokens(config.length)
    check_input_lengths(evaluation.input_lengths or (config.length,), network)
    check_num_window_offsets(evaluation.num_window_offsets, network)
    make_augmentation(config.augment.transforms)
    build_network(config)


def _check_reach(config: PretrainConfig, workdir: Path, profile: bool) -> None:
    """Refuses what can only be kept in a folder of this machine, and would go elsewhere."""
    if storage_for(config.data.dir).remote:
        raise InputError(f"data.dir is {config.data.dir}; a corpus is read from a folder of this machine, or one that is mounted")
    if not storage_for(workdir).remote:
        return
    if not config.data.dir and synthetic_rows(config) < config.batch_size:
        raise InputError(f"data.dir is empty, and workdir {workdir} cannot hold a corpus; set data.dir to a folder of this machine")
    if profile:
        raise InputError(f"a profile cannot be written to {workdir}; leave out --profile, or choose a --workdir on this machine")


def _own(workdir: Path, processes: Processes) -> contextlib.AbstractContextManager:
    """Makes the workdir and holds it, once a run: two runs in one would destroy each other's checkpoints. A bucket has no lock."""
    return storage_for(workdir).lock(workdir) if processes.first else contextlib.nullcontext()


def _about(config: PretrainConfig, corpus: str, init_from: str | os.PathLike | None) -> dict[str, Any]:
    """What is recorded beside every checkpoint."""
    return {
        "config": to_dict(config),
        "corpus": corpus,
        "init_from": None if init_from is None else str(init_from),
        "commit": _commit(),
        "versions": {"nutime_jax": nutime_jax.__version__, **{name: importlib.metadata.version(name) for name in PACKAGES}},
    }


def _commit() -> str | None:
    """The commit of this code: recorded when it was built into a package, else asked of the checkout it runs from."""
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


def _check_same_run(workdir: Path, begun: dict[str, Any], about: dict[str, Any]) -> None:
    """Check that a workdir belongs to this run: no field differs but those that may change when a run resumes.

    The corpus is compared by its digest.
    """
    before, now = ({"corpus": run["corpus"], **values(from_dict(PretrainConfig, run["config"]))} for run in (begun, about))
    free = {name for name, one in options(PretrainConfig).items() if one.resume}
    changed = [name for name in now if name not in free and before[name] != now[name]]
    if changed:
        name = changed[0]
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise InputError(
            f"workdir {workdir} belongs to another run: {name} was {before[name]!r} there and is {now[name]!r} now{others}; "
            "choose another --workdir, or --init_from this one"
        )


def _initialise(state: TrainState, path: Path) -> TrainState:
    """Puts the weights of another run in a fresh state; the optimiser starts anew."""
    names = ("params", "variables", "target_params", "target_variables")
    loaded = read_arrays(path, names)
    ours = {name: getattr(state, name) for name in names}
    if jax.tree.map(np.shape, ours) != jax.tree.map(np.shape, loaded):
        raise InputError(f"the weights in {path} are of another model; start from a run with the same model and objective")
    log.info("starting from the weights in %s", path)
    return state.replace(**place(loaded, jax.tree.map(lambda leaf: leaf.sharding, ours)))
