"""The schema of the configurations of studies."""

from dataclasses import dataclass
from typing import Any

from nutime_jax.config import POOLINGS, PretrainConfig
from nutime_jax.errors import InputError
from nutime_jax.options import Section, option

SHARED = {
    "steps": 200,
    "batch_size": 128,
    "length": 256,
    "optim": {"warmup_steps": 20},
    "data": {"sources": ("bundled",), "exclude": (), "dir": "", "synthetic_fraction": 0.0},
    "run": {"log_every": 20, "checkpoint_every": 50, "max_to_keep": 1, "keep_period": 0, "best_metric": ""},
    "evaluation": {"input_lengths": (), "num_window_offsets": 1, "diff_orders": (0,)},
}
"""Small runs on the bundled datasets, without synthetic series."""


@dataclass(frozen=True)
class ProbeConfig(Section, prefix="probe"):
    """Probe of a study: one setting of a sweep."""

    sources: tuple[str, ...] = option(("bundled",), "Bundled datasets, files and folders, in default splits.")
    protocol: str = option("ridge", "Classifier: ridge, logistic, knn, 1nn, forest or a registered name.")
    scaler: str = option("standard", "Scaler of the features: none, standard or minmax.")
    layer: str = option("last", "Layer of the features: a number from 0 (the embedding), or last (normalised).")
    pooling: str = option("all_layers", "Pooling of the tokens; all_layers is cls+mean of every layer.", choices=POOLINGS)
    channels: str = option("concat", "Combination of the channels of a case.", choices=("mean", "concat"))
    length: str = option("encoder", "Length that series are resized to: encoder is that of pretrain.evaluation, or a number.")
    num_window_offsets: str = option("encoder", "Number of window offsets: encoder is that of pretrain.evaluation, or a number.")
    diff_orders: str = option("encoder", "Difference orders: encoder is those of pretrain.evaluation, or 0, 1, 0+1.")


@dataclass(frozen=True)
class StudyConfig(Section):
    """Fields that all studies have."""

    name: str = option("study", "Name of the study.")
    base: str = option("nutime_small", "Configuration that is pretrained: a shipped one, or a path of a .py file.")
    seeds: tuple[int, ...] = option((0, 1, 2), "Seeds of weights, views and data.", low=0, high=2**32 - 1, unique=True)
    only: tuple[str, ...] = option((), "Names of the variants (or domains) to compare; empty is all.")
    pretrain: dict[str, Any] = option(SHARED, "Changes of the base that all variants share.", schema=PretrainConfig)
    probe: ProbeConfig = ProbeConfig()


@dataclass(frozen=True)
class VariantsConfig(StudyConfig):
    """Configuration of a study of variants, such as `nutime study objectives`."""

    variants: dict[str, dict[str, Any]] = option({}, "Changes of each variant by its name.", schema=PretrainConfig)


@dataclass(frozen=True)
class DomainsConfig(StudyConfig):
    """Configuration of `nutime study domains`."""

    domains: dict[str, tuple[str, ...]] = option(
        {}, "Types of datasets of each domain by its name, as archives call them (nutime_jax/studies/set_types.csv)."
    )


@dataclass(frozen=True)
class WindowsConfig(VariantsConfig):
    """Configuration of `nutime study windows`."""

    groups: int = option(3, "Number of groups of datasets, by length, by periodicity and by period.", low=1)


@dataclass(frozen=True)
class ScalesConfig(VariantsConfig):
    """Configuration of `nutime study scales`. Without seeds it measures untrained embeddings alone."""

    decades: tuple[int, int] = option((-8, 8), "Lowest and highest power of 10 of scalars.", low=-30, high=30)
    per_decade: int = option(4, "Number of magnitudes per factor of 10 at which distances are measured.", low=1)
    draws: int = option(31, "Number of random initialisations of which the median distance counts.", low=1)
    blind: float = option(0.01, "Minimum distance of distinguished embeddings, relative to their norm.", low=0, high=1)
    decoded_draws: int = option(5, "Number of random initialisations that decoders are fitted to.", low=1)
    train_scalars: int = option(4000, "Number of scalars that a decoder is fitted to.", low=20)
    test_scalars: int = option(1600, "Number of scalars that a decoder is tested on.", low=20)
    noise: float = option(0.01, "Std of noise on embeddings, relative to their norm.", low=0, high=1)
    powers: tuple[int, ...] = option(
        (-8, -6, -4, -2, 0, 2, 4, 6, 8),
        "Powers of 10 that datasets are multiplied by; 0 is required.",
        low=-30,
        high=30,
        unique=True,
    )

    def _check(self) -> None:
        if self.decades[0] >= self.decades[1]:
            raise InputError(f"decades is {self.decades}; choose a lowest power below the highest")
        if self.seeds and 0 not in self.powers:
            raise InputError(f"powers is {self.powers}; choose powers with 0, the unit of training")
