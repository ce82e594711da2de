"""Scale coverage: what an encoder of scalars tells apart, from 1e-8 to 1e8, and what that is worth in another unit."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nutime_jax.config import PretrainConfig
from nutime_jax.data.datasets import Cases, DatasetFiles, find_all_datasets
from nutime_jax.errors import InputError
from nutime_jax.report.charts import Panel, draw_panels
from nutime_jax.studies.configuration import ScalesConfig
from nutime_jax.studies.findings import Findings, Table, spread
from nutime_jax.studies.scalars import ScalarEmbedding
from nutime_jax.studies.scores import Scores, check_probe, score_runs, set_table
from nutime_jax.studies.variants import Variant, make_variants, plan_runs, train_runs

log = logging.getLogger(__name__)

PENALTIES = np.logspace(-6, 3, 10)
NEIGHBOURS = 5
"""Choices of the decoders."""
DECODERS = {
    "ridge": (lambda: RidgeClassifierCV(PENALTIES), lambda: RidgeCV(PENALTIES)),
    "knn": (lambda: KNeighborsClassifier(NEIGHBOURS), lambda: KNeighborsRegressor(NEIGHBOURS)),
}
"""Name -> what tells the sign from an embedding, and what tells the logarithm of the magnitude."""


class Apart(NamedTuple):
    """How far apart embeddings are, at every magnitude: medians over draws of the weights, shape (magnitudes,).

    sign, double: distance of the embeddings of x and -x, and of x and 2x.
    sign_share, double_share: the same over the mean norm of the two.
    """

    sign: np.ndarray
    double: np.ndarray
    sign_share: np.ndarray
    double_share: np.ndarray


class Decoded(NamedTuple):
    """What a decoder gets wrong in every decade, in the mean over draws of the weights, shape (decades,).

    sign: share of signs that are wrong, in percent; 50 is chance.
    magnitude: mean absolute error of log10 |x|, in decades.
    """

    sign: np.ndarray
    magnitude: np.ndarray


@dataclass(frozen=True)
class Coverage:
    """What is measured of one variant without training."""

    apart: Apart
    decoded: Mapping[str, Decoded]


def study_scales(config: ScalesConfig, base: PretrainConfig, out: Path) -> Findings:
    """Measures what untrained embeddings of scalars tell apart; then, unless there are no seeds, what trained encoders are worth on
    sets in other units.

    Args:
        config: see docs/configuration.md.
        base: the configuration that the variants change.
        out: where runs and results are kept.

    Raises:
        InputError: the configuration will not do, or nothing came of it.
    """
    check_probe(config.probe)
    variants, sets = make_variants(config, base), find_all_datasets(config.probe.sources) if config.seeds else []
    decades = np.arange(config.decades[0], config.decades[1])
    covered = {}
    with tqdm(variants, desc="scalars", unit=" variants") as bar:
        for variant in bar:
            bar.set_postfix_str(variant.name)
            covered[variant.name] = measure(variant, config)
    magnitudes = magnitudes_of(config)
    panels = _panels(covered, magnitudes, decades)
    tables = {"table": compare_coverage(covered, magnitudes, blind=config.blind)}
    tables |= {"distances": _distances(covered, magnitudes), "decoding": _decoding(covered, decades)}
    if not config.seeds:
        return Findings(tables, partial(draw_panels, panels))
    scores, failures = rescaled_scores(variants, sets, config, out)
    units = rescaled_means(scores, config.powers)
    tables = {"table": tables.pop("table"), "units": units} | tables | {"sets": set_table(scores)}
    return Findings(
        tables, partial(draw_panels, [*panels, _unit_panel(units, config.powers)]), shown=2, notes=(*scores.left_out, *failures)
    )


def magnitudes_of(config: ScalesConfig) -> np.ndarray:
    """Magnitudes from the lowest to the highest power of ten, `per_decade` of them in a decade."""
    low, high = config.decades
    return 10.0 ** np.linspace(low, high, (high - low) * config.per_decade + 1)


def measure(variant: Variant, config: ScalesConfig) -> Coverage:
    """Everything that is measured of a variant without training.

    Raises:
        InputError: it embeds no scalars.
    """
    try:
        embedding = ScalarEmbedding(variant.config.model)
    except InputError as error:
        raise InputError(f"variant {variant.name}: {error}") from error
    apart = distances(embedding, magnitudes_of(config), draws=config.draws)
    options = {"train": config.train_scalars, "test": config.test_scalars, "noise": config.noise, "draws": config.decoded_draws}
    return Coverage(apart, decode(embedding, config.decades, **options))


def distances(embedding: ScalarEmbedding, magnitudes: np.ndarray, *, draws: int) -> Apart:
    """Distances of the embeddings of x and -x and of x and 2x, at every magnitude, over draws of the weights."""
    x = np.concatenate([magnitudes, -magnitudes, 2 * magnitudes])
    found = []
    for seed in range(draws):
        here, *others = np.split(embedding.embed(embedding.draw(seed), x), 3)
        apart = [np.linalg.norm(here - other, axis=1) for other in others]
        norms = [(np.linalg.norm(here, axis=1) + np.linalg.norm(other, axis=1)) / 2 for other in others]
        found.append([*apart, *(gap / np.maximum(norm, np.finfo(float).tiny) for gap, norm in zip(apart, norms, strict=True))])
    return Apart(*np.median(found, axis=0))


def decode(embedding: ScalarEmbedding, decades: tuple[int, int], *, train: int, test: int, noise: float, draws: int) -> dict[str, Decoded]:
    """What decoders of embeddings get wrong on scalars that they have not seen; magnitudes are uniform in their logarithm.

    Args:
        train, test: scalars that decoders are fitted on, and asked about.
        noise: of the embeddings, as a share of the norm of each.
        draws: of weights, scalars and noise.
    """
    low, high = decades
    count = high - low
    errors: dict[str, list] = {name: [] for name in DECODERS}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        variables = embedding.draw(seed)
        known, asked = (_scalars(rng, low, high, size) for size in (train, test))
        features = [_blurred(rng, embedding.embed(variables, sign * 10.0**power), noise) for sign, power in (known, asked)]
        decade = np.minimum((asked[1] - low).astype(int), count - 1)
        for name, (classifier, regressor) in DECODERS.items():
            with threadpool_limits(1):
                signs = make_pipeline(StandardScaler(), classifier()).fit(features[0], known[0]).predict(features[1])
                powers = make_pipeline(StandardScaler(), regressor()).fit(features[0], known[1]).predict(features[1])
            wrong = [100.0 * (signs != asked[0]), np.abs(powers - asked[1])]
            errors[name].append([[np.mean(one[decade == number]) for number in range(count)] for one in wrong])
    return {name: Decoded(*np.mean(each, axis=0)) for name, each in errors.items()}


def _scalars(rng: np.random.Generator, low: int, high: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Signs and powers of ten; every decade has as many, so that none is empty."""
    powers = low + (high - low) * (np.arange(size) + rng.random(size)) / size
    return rng.choice([-1, 1], size), powers


def _blurred(rng: np.random.Generator, vectors: np.ndarray, noise: float) -> np.ndarray:
    """Vectors with normal noise, whose norm is about that share of each of theirs."""
    size = noise / np.sqrt(vectors.shape[1]) * np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors + size * rng.normal(size=vectors.shape)


def compare_coverage(covered: Mapping[str, Coverage], magnitudes: np.ndarray, *, blind: float) -> Table:
    """A line a variant: where it tells signs and doubles apart, and what decoders get wrong in the mean over decades."""
    lines = []
    for name, found in covered.items():
        seen = [seen_range(share, magnitudes, blind=blind) for share in (found.apart.sign_share, found.apart.double_share)]
        wrong = [float(np.mean(part)) for one in found.decoded.values() for part in one]
        lines.append((name, *seen, *wrong))
    heads = [f"{what}, {name}" for name in DECODERS for what in ("sign wrong in %", "decades off")]
    title = f"Untrained embeddings of scalars from {magnitudes[0]:.0e} to {magnitudes[-1]:.0e}, and what decoders make of them"
    return Table(title, ("variant", "tells x from -x", "tells x from 2x", *heads), tuple(lines))


def seen_range(share: np.ndarray, magnitudes: np.ndarray, *, blind: float) -> str:
    """The longest run of magnitudes at which embeddings differ by `blind` of their norm or more, in words."""
    seen = np.concatenate([[False], share >= blind, [False]])
    edges = np.flatnonzero(seen[1:] != seen[:-1]).reshape(-1, 2)
    if not len(edges):
        return "nowhere"
    start, end = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    if end - start == len(magnitudes):
        return "everywhere"
    return f"{magnitudes[start]:.1e} to {magnitudes[end - 1]:.1e}"


def _distances(covered: Mapping[str, Coverage], magnitudes: np.ndarray) -> Table:
    lines = [
        (name, float(x), *(float(one[place]) for one in found.apart))
        for name, found in covered.items()
        for place, x in enumerate(magnitudes)
    ]
    columns = ("variant", "x", "x to -x", "x to 2x", "x to -x over norm", "x to 2x over norm")
    return Table("Distances of embeddings, medians over draws of the weights", columns, tuple(lines))


def _decoding(covered: Mapping[str, Coverage], decades: np.ndarray) -> Table:
    lines = [
        (name, decoder, int(decade), float(one.sign[place]), float(one.magnitude[place]))
        for name, found in covered.items()
        for decoder, one in found.decoded.items()
        for place, decade in enumerate(decades)
    ]
    columns = ("variant", "decoder", "decade from 10^", "sign wrong in %", "decades off")
    return Table("What decoders get wrong, means over draws of the weights", columns, tuple(lines))


@dataclass(frozen=True)
class RescaledSet(DatasetFiles):
    """A set of which every value is multiplied by a power of ten, in both splits."""

    power: int = 0

    def clean(self, raw: Cases, split: str) -> Cases:
        cases = super().clean(raw, split)
        return replace(cases, series=[one * np.float32(10.0**self.power) for one in cases.series])


def rescaled(files: DatasetFiles, power: int) -> RescaledSet:
    """The set in another unit, under another name."""
    return RescaledSet(f"{files.name} x 10^{power}", files.train, files.test, power)


def rescaled_scores(
    variants: Sequence[Variant], sets: Sequence[DatasetFiles], config: ScalesConfig, out: Path
) -> tuple[Scores, tuple[str, ...]]:
    """Trains the variants, and probes them on every set times every power of ten; scores, and sentences about failures."""
    training = train_runs(plan_runs(variants, config.seeds, out))
    units = [rescaled(one, power) for one in sets for power in config.powers]
    return score_runs(training.finished, units, config.probe, out), training.failures


def rescaled_means(scores: Scores, powers: Sequence[int]) -> Table:
    """A line a variant, a column a power: mean accuracy over the sets that have a number at every power."""
    names = dict.fromkeys(name.rpartition(" x 10^")[0] for name in scores.sets)
    whole = [name for name in names if all(f"{name} x 10^{power}" in scores.sets for power in powers)]
    if not whole:
        raise InputError("no set has a number at every one of powers; see the sets that are left out, or name fewer powers")
    lines = [
        (variant, *(spread(scores.mean(variant, [f"{name} x 10^{power}" for name in whole])) for power in powers))
        for variant in scores.twin
    ]
    title = f"Accuracy in % of trained encoders on {len(whole)} sets times 10^k, both splits"
    return Table(title, ("variant", *(f"k = {power}" for power in powers)), tuple(lines))


def _panels(covered: Mapping[str, Coverage], magnitudes: np.ndarray, decades: np.ndarray) -> list[Panel]:
    limits = (1e-9, None)
    apart = [
        Panel(title, "|x|", "distance / norm", magnitudes, {name: getattr(one.apart, field) for name, one in covered.items()}, "xy", limits)
        for title, field in (("embeddings of x and -x", "sign_share"), ("embeddings of x and 2x", "double_share"))
    ]
    middles = decades + 0.5
    decoded = [
        Panel(title, "log10 |x|", label, middles, {name: getattr(one.decoded["knn"], field) for name, one in covered.items()})
        for title, label, field in (
            ("sign, decoded by neighbours", "wrong in %", "sign"),
            ("magnitude, decoded by neighbours", "decades off", "magnitude"),
        )
    ]
    return [*apart, *decoded]


def _unit_panel(units: Table, powers: Sequence[int]) -> Panel:
    return Panel("both splits times 10^k", "k", "accuracy in %", list(powers), {line[0]: line[1:] for line in units.lines})
