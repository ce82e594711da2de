"""Variants of one pretraining: the configuration of a study, and its runs, each resumable in its own workdir."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nutime_jax.compilation_cache import enable_compilation_cache
from nutime_jax.config import POOLINGS, ModelConfig, PretrainConfig, update
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.evaluation.protocols.probes import PROBES
from nutime_jax.options import Section, option
from nutime_jax.overrides import merge
from nutime_jax.training.loop import check_config, is_finished, pretrain

log = logging.getLogger(__name__)

SHARED = {
    "steps": 200,
    "batch_size": 128,
    "length": 256,
    "optim": {"warmup_steps": 20},
    "data": {"sources": ("bundled",), "exclude": (), "dir": "", "synthetic_fraction": 0.0},
    "run": {"log_every": 20, "checkpoint_every": 50, "max_to_keep": 1, "keep_period": 0, "best_metric": ""},
    "view_lengths": (),
    "model": {"dense_stride": 0, "dense_differences": False, "dense_width": 0},
    "evaluation": {"input_lengths": (), "num_window_offsets": 1, "diff_orders": (0,)},
}
"""Small runs on the bundled datasets, without synthetic series, with published windows and views of one length."""


@dataclass(frozen=True)
class ProbeConfig(Section, prefix="probe"):
    """Probe of a study: one setting of a sweep."""

    sources: tuple[str, ...] = option(("bundled",), "Bundled datasets, files and folders, in default splits.")
    protocol: str = option("ridge", "Classifier: ridge, logistic, knn, 1nn, forest or a registered name.")
    scaler: str = option("standard", "Scaler of the features: none, standard or minmax.")
    layer: str = option("last", "Layer of the features: a number from 0 (the embedding), or last (normalised).")
    pooling: str = option("all_layers", "Pooling of the tokens, see models/pooling.py.", choices=POOLINGS)
    channels: str = option("concat", "Combination of the channels of a case.", choices=("mean", "concat"))
    length: str = option("encoder", "Length that series are resized to: encoder is that of pretrain.evaluation, or a number.")
    num_window_offsets: str = option("encoder", "Number of window offsets: encoder is that of pretrain.evaluation, or a number.")
    diff_orders: str = option("encoder", "Difference orders: encoder is those of pretrain.evaluation, or 0, 1, 0+1.")

    def _check(self) -> None:
        if self.protocol not in PROBES:
            raise InputError(f"probe.protocol is {self.protocol!r}; choose one of {', '.join(PROBES)}")


@dataclass(frozen=True)
class StudyConfig(Section):
    """Fields of all studies."""

    name: str = option("study", "Name of the study.")
    base: str = option("nutime_small", "Configuration that is pretrained: a shipped one, or a path of a .py file.")
    seeds: tuple[int, ...] = option((0, 1, 2), "Seeds of weights, views and data.", low=0, high=2**32 - 1, unique=True)
    selected: tuple[str, ...] = option((), "Names of the variants (or domains) to compare; empty is all.")
    pretrain: dict[str, Any] = option(SHARED, "Changes of the base that all variants share.", schema=PretrainConfig)
    probe: ProbeConfig = ProbeConfig()


@dataclass(frozen=True)
class VariantsConfig(StudyConfig):
    """Configuration of a study of variants, such as studies/objectives.py."""

    variants: dict[str, dict[str, Any]] = option({}, "Changes of each variant by its name.", schema=PretrainConfig)


@dataclass(frozen=True)
class Variant:
    """Name and configuration of a pretraining, without the seed."""

    name: str
    config: PretrainConfig


@dataclass(frozen=True)
class Run:
    """A variant with a seed, in its own workdir."""

    variant: str
    seed: int
    config: PretrainConfig
    workdir: Path


@dataclass(frozen=True)
class StudyRuns:
    """The finished runs, and one sentence per diverged run."""

    finished: tuple[Run, ...]
    failures: tuple[str, ...]


def make_variants(config: VariantsConfig, base: PretrainConfig) -> list[Variant]:
    """Return the selected variants: the base with `pretrain` and the changes of each.

    Raises:
        InputError: a name is unknown, or a variant is not a valid configuration.
    """
    chosen = select_variants(config.variants, config.selected, section="variants")
    return [make_variant(name, base, merge(config.pretrain, changes)) for name, changes in chosen.items()]


def make_variant(name: str, base: PretrainConfig, changes: Mapping[str, Any]) -> Variant:
    """Return the base with changes, checked before the first run starts.

    Raises:
        InputError: the result is not a valid configuration.
    """
    try:
        config = update(base, changes)
        check_config(config)
    except InputError as error:
        raise InputError(f"variant {name}: {error}") from error
    return Variant(name, config)


def select_variants(variants: Mapping[str, Any], selected: Sequence[str], *, section: str) -> dict[str, Any]:
    """Return the selected entries of a section, or all entries if none is selected.

    Raises:
        InputError: the section is empty, a selected name is not in it, or a name cannot name a folder.
    """
    if not variants:
        raise InputError(f"{section} is empty; add one entry or more")
    for name in (*selected, *variants):
        if name not in variants:
            raise InputError(f"selected names {name!r}; {section} has {', '.join(variants)}")
        if not re.fullmatch(r"\w[\w+-]*", name):
            raise InputError(f"{section} has {name!r}, which cannot name a folder; use letters, digits, dashes and plus signs")
    return {name: variants[name] for name in selected or variants}


def plan_runs(variants: Sequence[Variant], seeds: Iterable[int], out: Path) -> list[Run]:
    """Return every variant with every seed. All runs share one folder of corpora, unless `data.dir` is set.

    Raises:
        InputError: there is no seed, or a seed is repeated.
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


def train_runs(runs: Sequence[Run]) -> StudyRuns:
    """Train the unfinished runs, one after the other. Diverged runs are listed, and the others continue.

    Raises:
        InputError: a workdir belongs to another run, a run is invalid, or all runs diverged.
    """
    enable_compilation_cache()
    finished, failures = [], []
    for number, run in enumerate(runs, 1):
        label = f"run {number} of {len(runs)}: variant {run.variant}, seed {run.seed}"
        try:
            if is_finished(run.config, run.workdir):
                log.info("%s, is finished", label)
            else:
                log.info("%s", label)
                pretrain(run.config, run.workdir)
            finished.append(run)
        except DivergenceError as error:
            log.warning("%s, diverged: %s", label, error)
            failures.append(f"variant {run.variant}, seed {run.seed}, diverged: {error}")
        except InputError as error:
            # The workdir is derived from --out, the only path that users choose here.
            reason = str(error).replace("choose another --workdir, or --init_from this one", "choose another --out")
            raise InputError(f"variant {run.variant}, seed {run.seed}: {reason}") from error
    if not finished:
        raise InputError(f"every run diverged; first message: {failures[0]}")
    return StudyRuns(tuple(finished), tuple(failures))


def untrained_names(runs: Sequence[Run]) -> dict[str, str]:
    """Return variant -> name of its untrained baseline. Variants of equal models share a baseline."""
    first: dict[tuple[ModelConfig, int, int], str] = {}
    for run in runs:
        first.setdefault(_feature_options(run.config), run.variant)
    if len(first) == 1:
        return {run.variant: "untrained" for run in runs}
    return {run.variant: f"untrained {first[_feature_options(run.config)]}" for run in runs}


def _feature_options(config: PretrainConfig) -> tuple[ModelConfig, int, int]:
    """Return the options that determine the features of an untrained encoder, without its seed."""
    return config.model, config.length, config.data.max_length
