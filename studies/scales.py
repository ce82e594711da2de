"""Scale coverage of scalar encoders, by number, spacing and range of their scales.

    python -m studies.scales --out=results/scales
    python -m studies.scales --out=results/scales --config.seeds=

First, without training, over random initialisations and magnitudes from 1e-8 to 1e8: distances of the embeddings of x and -x
and of x and 2x; errors of ridge and 5-nearest-neighbour decoders of sign and magnitude on unseen scalars. Then every variant
is pretrained and probed on datasets multiplied by powers of ten in both splits; --config.seeds= skips this part.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from nutime_jax.config import ModelConfig, PretrainConfig
from nutime_jax.data.datasets import Cases, DatasetFiles, find_all_datasets
from nutime_jax.errors import InputError
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS, check_scalar_encoder
from nutime_jax.options import option
from nutime_jax.progress import ProgressBar
from studies.charts import Panel, plot_panels
from studies.command import run_command
from studies.report import StudyReport, StudyTable, seed_stats
from studies.scores import Scores, dataset_table, train_and_score
from studies.variants import Variant, VariantsConfig, make_variants

log = logging.getLogger(__name__)

PENALTIES = np.logspace(-6, 3, 10)
"""Ridge penalties that decoders choose from."""
NEIGHBOURS = 5
DECODERS = {
    "ridge": (lambda: RidgeClassifierCV(PENALTIES), lambda: RidgeCV(PENALTIES)),
    "knn": (lambda: KNeighborsClassifier(NEIGHBOURS), lambda: KNeighborsRegressor(NEIGHBOURS)),
}
"""Name -> classifier of the sign, and regressor of log10 of the magnitude."""


@dataclass(frozen=True)
class ScalesConfig(VariantsConfig):
    """Configuration of studies/scales.py. Without seeds it measures untrained embeddings only."""

    log10_range: tuple[int, int] = option((-8, 8), "Lowest and highest power of 10 of scalars.", low=-30, high=30)
    per_decade: int = option(4, "Number of magnitudes per factor of 10 at which distances are measured.", low=1)
    draws: int = option(31, "Number of random initialisations of which the median distance counts.", low=1)
    distance_threshold: float = option(0.01, "Minimum distance of distinguished embeddings, relative to their norm.", low=0, high=1)
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
        if self.log10_range[0] >= self.log10_range[1]:
            raise InputError(f"log10_range is {self.log10_range}; choose a lowest power below the highest")
        if self.seeds and 0 not in self.powers:
            raise InputError(f"powers is {self.powers}; choose powers with 0, the unit of training")


class EmbeddingDistances(NamedTuple):
    """Distances of embeddings at every magnitude: medians over initialisations, shape (magnitudes,).

    sign, double: distance of the embeddings of x and -x, and of x and 2x.
    sign_ratio, double_ratio: the same, divided by the mean norm of the two embeddings.
    """

    sign: np.ndarray
    double: np.ndarray
    sign_ratio: np.ndarray
    double_ratio: np.ndarray


class DecodingErrors(NamedTuple):
    """Errors of a decoder per factor of 10: means over initialisations, shape (powers,).

    sign: sign errors in percent; 50 is chance.
    magnitude: mean absolute error of log10 |x|.
    """

    sign: np.ndarray
    magnitude: np.ndarray


@dataclass(frozen=True)
class Coverage:
    """Measurements of a variant without training; errors by name of the decoder."""

    distances: EmbeddingDistances
    errors: Mapping[str, DecodingErrors]


class ScalarEmbedding:
    """Scalar encoder of a model, randomly initialised.

    Raises:
        InputError: the model embeds no scalars.
    """

    def __init__(self, model: ModelConfig):
        check_scalar_encoder(model)
        if model.window_stats == "none":
            raise InputError("the model embeds no scalars (window_stats is 'none'); choose another variant")
        module = SCALAR_ENCODERS[model.scalar_encoder](model, None)
        self._init, self._apply = jax.jit(module.init), jax.jit(module.apply)

    def init(self, seed: int) -> Any:
        """Return the weights of a seed."""
        return self._init(jax.random.key(seed), jnp.ones(1))

    def embed(self, variables: Any, x: np.ndarray) -> np.ndarray:
        """Return embeddings of scalars, (scalars,) -> (scalars, dim)."""
        with jax.default_matmul_precision("highest"):
            return np.asarray(self._apply(variables, jnp.asarray(x, jnp.float32)), np.float64)


def study_scales(config: ScalesConfig, base: PretrainConfig, out: Path) -> StudyReport:
    """Measure untrained scalar embeddings; then, if there are seeds, probe trained encoders on rescaled datasets.

    Args:
        config: see docs/configuration.md.
        base: the configuration that the variants change.
        out: folder of runs and results.

    Raises:
        InputError: the configuration is not valid, or no run has results.
    """
    variants, datasets = make_variants(config, base), find_all_datasets(config.probe.sources) if config.seeds else []
    decades = np.arange(config.log10_range[0], config.log10_range[1])
    coverage = {}
    with ProgressBar(variants, desc="scalars", unit=" variants") as bar:
        for variant in bar:
            bar.set_postfix_str(variant.name)
            coverage[variant.name] = measure_coverage(variant, config)
    magnitudes = make_magnitudes(config)
    panels = _coverage_panels(coverage, magnitudes, decades)
    tables = {"table": compare_coverage(coverage, magnitudes, threshold=config.distance_threshold)}
    tables |= {"distances": _distance_table(coverage, magnitudes), "decoding": _decoding_table(coverage, decades)}
    if not config.seeds:
        return StudyReport(tables, partial(plot_panels, panels))
    rescaled = [rescale_dataset(files, power) for files in datasets for power in config.powers]
    scores = train_and_score(variants, rescaled, config, out)
    units = compare_units(scores, config.powers)
    tables = {"table": tables.pop("table"), "units": units} | tables | {"datasets": dataset_table(scores)}
    draw = partial(plot_panels, [*panels, _unit_panel(units, config.powers)])
    return StudyReport(tables, draw, shown=2, notes=scores.notes)


def make_magnitudes(config: ScalesConfig) -> np.ndarray:
    """Return magnitudes from the lowest to the highest power of ten, `per_decade` per factor of 10."""
    low, high = config.log10_range
    return 10.0 ** np.linspace(low, high, (high - low) * config.per_decade + 1)


def measure_coverage(variant: Variant, config: ScalesConfig) -> Coverage:
    """Measure a variant without training.

    Raises:
        InputError: the variant embeds no scalars.
    """
    try:
        embedding = ScalarEmbedding(variant.config.model)
    except InputError as error:
        raise InputError(f"variant {variant.name}: {error}") from error
    distances = measure_distances(embedding, make_magnitudes(config), draws=config.draws)
    options = {"train": config.train_scalars, "test": config.test_scalars, "noise": config.noise, "draws": config.decoded_draws}
    return Coverage(distances, measure_decoding(embedding, config.log10_range, **options))


def measure_distances(embedding: ScalarEmbedding, magnitudes: np.ndarray, *, draws: int) -> EmbeddingDistances:
    """Measure distances of the embeddings of x and -x and of x and 2x at every magnitude."""
    x = np.concatenate([magnitudes, -magnitudes, 2 * magnitudes])
    draws_of_distances = []
    for seed in range(draws):
        original, *others = np.split(embedding.embed(embedding.init(seed), x), 3)
        distances = [np.linalg.norm(original - other, axis=1) for other in others]
        norms = [(np.linalg.norm(original, axis=1) + np.linalg.norm(other, axis=1)) / 2 for other in others]
        ratios = [distance / np.maximum(norm, np.finfo(float).tiny) for distance, norm in zip(distances, norms, strict=True)]
        draws_of_distances.append([*distances, *ratios])
    return EmbeddingDistances(*np.median(draws_of_distances, axis=0))


def measure_decoding(
    embedding: ScalarEmbedding, decades: tuple[int, int], *, train: int, test: int, noise: float, draws: int
) -> dict[str, DecodingErrors]:
    """Measure errors of decoders on unseen scalars, whose magnitudes are uniform in their logarithm.

    Args:
        train, test: number of scalars that decoders are fitted to and tested on.
        noise: std of the noise on embeddings, relative to the norm of each.
        draws: number of samples of weights, scalars and noise.
    """
    low, high = decades
    errors: dict[str, list] = {name: [] for name in DECODERS}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        variables = embedding.init(seed)
        (signs, powers), (test_signs, test_powers) = (_sample_scalars(rng, low, high, size) for size in (train, test))
        features, test_features = (
            _add_noise(rng, embedding.embed(variables, sign * 10.0**power), noise)
            for sign, power in ((signs, powers), (test_signs, test_powers))
        )
        decade = np.minimum((test_powers - low).astype(int), high - low - 1)
        for name, (classifier, regressor) in DECODERS.items():
            with threadpool_limits(1):
                decoded_signs = make_pipeline(StandardScaler(), classifier()).fit(features, signs).predict(test_features)
                decoded_powers = make_pipeline(StandardScaler(), regressor()).fit(features, powers).predict(test_features)
            wrong = 100.0 * (decoded_signs != test_signs), np.abs(decoded_powers - test_powers)
            errors[name].append([[np.mean(error[decade == number]) for number in range(high - low)] for error in wrong])
    return {name: DecodingErrors(*np.mean(each, axis=0)) for name, each in errors.items()}


def _sample_scalars(rng: np.random.Generator, low: int, high: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return signs and powers of ten, equally many per factor of 10."""
    powers = low + (high - low) * (np.arange(size) + rng.random(size)) / size
    return rng.choice([-1, 1], size), powers


def _add_noise(rng: np.random.Generator, vectors: np.ndarray, noise: float) -> np.ndarray:
    """Add normal noise, whose norm is about `noise` times that of each vector."""
    size = noise / np.sqrt(vectors.shape[1]) * np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors + size * rng.normal(size=vectors.shape)


def compare_coverage(coverage: Mapping[str, Coverage], magnitudes: np.ndarray, *, threshold: float) -> StudyTable:
    """Return one line per variant: ranges in which x is distinguished from -x and 2x, and mean errors of decoders."""
    lines = []
    for name, found in coverage.items():
        ratios = found.distances.sign_ratio, found.distances.double_ratio
        ranges = [distinguished_range(ratio, magnitudes, threshold=threshold) for ratio in ratios]
        errors = [float(np.mean(values)) for error in found.errors.values() for values in error]
        lines.append((name, *ranges, *errors))
    heads = [f"{error}, {name}" for name in DECODERS for error in ("sign errors in %", "log10 error")]
    title = f"Untrained embeddings of scalars from {magnitudes[0]:.0e} to {magnitudes[-1]:.0e}, and errors of decoders"
    return StudyTable(title, ("variant", "x and -x differ", "x and 2x differ", *heads), tuple(lines))


def distinguished_range(ratio: np.ndarray, magnitudes: np.ndarray, *, threshold: float) -> str:
    """Return the longest range of magnitudes at which embeddings differ by `threshold` of their norm or more."""
    distinguished = np.concatenate([[False], ratio >= threshold, [False]])
    edges = np.flatnonzero(distinguished[1:] != distinguished[:-1]).reshape(-1, 2)
    if not len(edges):
        return "none"
    start, end = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    if end - start == len(magnitudes):
        return "all"
    return f"{magnitudes[start]:.1e} to {magnitudes[end - 1]:.1e}"


def _distance_table(coverage: Mapping[str, Coverage], magnitudes: np.ndarray) -> StudyTable:
    lines = [
        (name, float(x), *(float(values[index]) for values in found.distances))
        for name, found in coverage.items()
        for index, x in enumerate(magnitudes)
    ]
    columns = ("variant", "x", "x to -x", "x to 2x", "x to -x over norm", "x to 2x over norm")
    return StudyTable("Distances of embeddings, medians over initialisations", columns, tuple(lines))


def _decoding_table(coverage: Mapping[str, Coverage], decades: np.ndarray) -> StudyTable:
    lines = [
        (name, decoder, int(decade), float(error.sign[index]), float(error.magnitude[index]))
        for name, found in coverage.items()
        for decoder, error in found.errors.items()
        for index, decade in enumerate(decades)
    ]
    columns = ("variant", "decoder", "from 10^", "sign errors in %", "log10 error")
    return StudyTable("Errors of decoders, means over initialisations", columns, tuple(lines))


@dataclass(frozen=True)
class RescaledDataset(DatasetFiles):
    """A dataset with every value multiplied by a power of ten, in both splits."""

    power: int = 0

    def clean(self, raw: Cases, split: str) -> Cases:
        cases = super().clean(raw, split)
        return replace(cases, series=[case * np.float32(10.0**self.power) for case in cases.series])


def rescale_dataset(files: DatasetFiles, power: int) -> RescaledDataset:
    """Return the dataset times a power of ten, under its own name."""
    return RescaledDataset(f"{files.name} x 10^{power}", files.train, files.test, files.columns, power)


def compare_units(scores: Scores, powers: Sequence[int]) -> StudyTable:
    """Return one line per variant and one column per power: mean accuracy over datasets with results at every power."""
    names = dict.fromkeys(name.rpartition(" x 10^")[0] for name in scores.datasets)
    complete = [name for name in names if all(f"{name} x 10^{power}" in scores.datasets for power in powers)]
    if not complete:
        raise InputError("no dataset has results at all powers; see the skipped datasets, or choose fewer powers")
    lines = [
        (variant, *(seed_stats(scores.mean(variant, [f"{name} x 10^{power}" for name in complete])) for power in powers))
        for variant in scores.baseline
    ]
    title = f"Accuracy in % of trained encoders on {len(complete)} datasets times 10^k, both splits"
    return StudyTable(title, ("variant", *(f"k = {power}" for power in powers)), tuple(lines))


def _coverage_panels(coverage: Mapping[str, Coverage], magnitudes: np.ndarray, decades: np.ndarray) -> list[Panel]:
    panels = []
    for title, field in (("embeddings of x and -x", "sign_ratio"), ("embeddings of x and 2x", "double_ratio")):
        lines = {name: getattr(found.distances, field) for name, found in coverage.items()}
        panels.append(Panel(title, "|x|", "distance / norm", magnitudes, lines, log="xy", limits=(1e-9, None)))
    for field, label in (("sign", "errors in %"), ("magnitude", "log10 error")):
        lines = {name: getattr(found.errors["knn"], field) for name, found in coverage.items()}
        panels.append(Panel(f"{field}, decoded by neighbours", "log10 |x|", label, decades + 0.5, lines))
    return panels


def _unit_panel(units: StudyTable, powers: Sequence[int]) -> Panel:
    lines = {line[0]: line[1:] for line in units.lines}
    return Panel("both splits times 10^k", "k", "accuracy in %", list(powers), lines)


if __name__ == "__main__":
    sys.exit(run_command(study_scales, ScalesConfig, name="scales", doc=__doc__))
