"""Objectives and scalar encoders: the same corpus, steps and probe, one thing changed at a time."""

from functools import partial
from pathlib import Path

from nutime_jax.config import PretrainConfig
from nutime_jax.data.datasets import find_all_datasets
from nutime_jax.report.charts import Panel, draw_panels
from nutime_jax.studies.configuration import VariantsConfig
from nutime_jax.studies.findings import Findings, Table, spread
from nutime_jax.studies.scores import Scores, check_probe, score_runs, set_table
from nutime_jax.studies.variants import make_variants, plan_runs, train_runs


def study_objectives(config: VariantsConfig, base: PretrainConfig, out: Path) -> Findings:
    """Trains every variant at every seed, and compares their accuracies, each with that of its untrained twin.

    Args:
        config: see docs/configuration.md.
        base: the configuration that the variants change.
        out: where runs and results are kept.

    Raises:
        InputError: the configuration will not do, or nothing came of it.
    """
    check_probe(config.probe)
    variants, sets = make_variants(config, base), find_all_datasets(config.probe.sources)
    training = train_runs(plan_runs(variants, config.seeds, out))
    scores = score_runs(training.finished, sets, config.probe, out)
    table = compare_with_twins(scores)
    return Findings(
        {"table": table, "sets": set_table(scores)},
        partial(_draw, table, len(scores.sets)),
        notes=(*scores.left_out, *training.failures),
    )


def compare_with_twins(scores: Scores) -> Table:
    """A line a variant: accuracy, that of its untrained twin, and what pretraining is worth (the mean of the differences)."""
    lines = [
        (variant, spread(scores.mean(variant)), spread(scores.mean(twin)), spread(scores.gain(variant, twin)))
        for variant, twin in scores.twin.items()
    ]
    title = f"Accuracy in %, mean of {len(scores.sets)} sets"
    return Table(title, ("variant", "pretrained", "untrained", "gain"), tuple(lines))


def _draw(table: Table, sets: int):
    names = [line[0] for line in table.lines]
    lines = {label: [line[place] for line in table.lines] for place, label in ((1, "pretrained"), (2, "untrained"))}
    return draw_panels([Panel("", "", f"accuracy in %, mean of {sets} sets", names, lines)])
