"""Variants of one pretraining: what a study changes, and the runs that it takes, each in a folder where it can go on."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nutime_jax.compilation_cache import enable_compilation_cache
from nutime_jax.config import ModelConfig, PretrainConfig, update
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.options import merge
from nutime_jax.studies.configuration import VariantsConfig
from nutime_jax.training.loop import check_config, is_finished, pretrain

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """A name, and the whole configuration of its pretraining but for the seed."""

    name: str
    config: PretrainConfig


@dataclass(frozen=True)
class Run:
    """A variant at a seed, and the workdir that is its own."""

    variant: str
    seed: int
    config: PretrainConfig
    workdir: Path


@dataclass(frozen=True)
class Training:
    """The runs that are finished, and a sentence about each that diverged."""

    finished: tuple[Run, ...]
    failures: tuple[str, ...]


def make_variants(config: VariantsConfig, base: PretrainConfig) -> list[Variant]:
    """Return the variants that `only` names, or all: the base with `pretrain` and with the changes of each.

    Raises:
        InputError: a name is unknown, or a variant is not a configuration that can be trained.
    """
    chosen = choose(config.variants, config.only, what="variants")
    return [make_variant(name, base, merge(config.pretrain, changes)) for name, changes in chosen.items()]


def make_variant(name: str, base: PretrainConfig, changes: Mapping[str, Any]) -> Variant:
    """Return a variant: the base with changes, checked before the first run starts.

    Raises:
        InputError: it is not a configuration that can be trained.
    """
    try:
        config = update(base, changes)
        check_config(config)
    except InputError as error:
        raise InputError(f"variant {name}: {error}") from error
    return Variant(name, config)


def choose(known: Mapping[str, Any], only: Sequence[str], *, what: str) -> dict[str, Any]:
    """Those of a section that `only` names; all of them where it is empty.

    Args:
        what: the name of the section.

    Raises:
        InputError: there are none, none of such a name, or a name is no name of a folder.
    """
    if not known:
        raise InputError(f"{what} is empty; name one at least")
    for name in (*only, *known):
        if name not in known:
            raise InputError(f"only names {name!r}; {what} has {', '.join(known)}")
        if not re.fullmatch(r"\w[\w+-]*", name):
            raise InputError(f"{what} has {name!r}, which cannot name a folder; use letters, digits, dashes and plus signs")
    return {name: known[name] for name in only or known}


def plan_runs(variants: Sequence[Variant], seeds: Iterable[int], out: Path) -> list[Run]:
    """Every variant at every seed; all read their corpora from one folder, unless the base says which.

    Raises:
        InputError: there is no seed, or one is named twice.
    """
    seeds = tuple(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds is {seeds}; name one or more, each once")
    runs = []
    for variant in variants:
        for seed in seeds:
            name = f"{variant.name}-{seed}"
            data = {"dir": variant.config.data.dir or str(out.absolute() / "corpora")}
            config = update(variant.config, {"name": name, "seed": seed, "data": data})
            runs.append(Run(variant.name, seed, config, out / "runs" / name))
    return runs


def train_runs(runs: Sequence[Run]) -> Training:
    """Pretrains what is not finished yet, one run after the other. A run that diverges is listed, and the others go on.

    Raises:
        InputError: a workdir belongs to another run, or a run cannot be done; or all have diverged.
    """
    enable_compilation_cache()
    finished, failures = [], []
    for number, run in enumerate(runs, 1):
        where = f"run {number} of {len(runs)}: variant {run.variant}, seed {run.seed}"
        try:
            if is_finished(run.config, run.workdir):
                log.info("%s, is finished", where)
            else:
                log.info("%s", where)
                pretrain(run.config, run.workdir)
            finished.append(run)
        except DivergenceError as error:
            log.warning("%s, diverged: %s", where, error)
            failures.append(f"variant {run.variant}, seed {run.seed}, diverged: {error}")
        except InputError as error:
            # Whoever runs a study has chosen no workdir.
            reason = str(error).replace("choose another --workdir, or --init_from this one", "choose another --out")
            raise InputError(f"variant {run.variant}, seed {run.seed}: {reason}") from error
    if not finished:
        raise InputError(f"every run diverged; the first says: {failures[0]}")
    return Training(tuple(finished), tuple(failures))


def twins(runs: Sequence[Run]) -> dict[str, str]:
    """Variant -> name of its untrained twin; variants of one model, which untrained are the same, share it."""
    first: dict[tuple[ModelConfig, int, int], str] = {}
    for run in runs:
        first.setdefault(_model(run.config), run.variant)
    alone = len(first) == 1
    return {run.variant: "untrained" if alone else f"untrained {first[_model(run.config)]}" for run in runs}


def _model(config: PretrainConfig) -> tuple[ModelConfig, int, int]:
    """The options that determine the features of an untrained encoder, without its seed."""
    return config.model, config.length, config.data.max_length
