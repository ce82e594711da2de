"""Objectives and scalar encoders, one change per variant, with the same corpus, steps and probe.

    python -m studies.objectives --out=results/objectives

Every variant is trained with several seeds and compared with its untrained baseline.
"""

import sys
from functools import partial
from pathlib import Path

from nutime_jax.config import PretrainConfig
from nutime_jax.data.datasets import find_all_datasets
from studies.charts import Panel, plot_panels
from studies.command import run_command
from studies.report import StudyReport, StudyTable, seed_stats
from studies.scores import Scores, dataset_table, train_and_score
from studies.variants import VariantsConfig, make_variants


def study_objectives(config: VariantsConfig, base: PretrainConfig, out: Path) -> StudyReport:
    """Train every variant with every seed and compare its accuracy with that of its untrained baseline.

    Args:
        config: see docs/configuration.md.
        base: the configuration that the variants change.
        out: folder of runs and results.

    Raises:
        InputError: the configuration is not valid, or no run has results.
    """
    scores = train_and_score(make_variants(config, base), find_all_datasets(config.probe.sources), config, out)
    table = compare_with_untrained(scores)
    tables = {"table": table, "datasets": dataset_table(scores)}
    return StudyReport(tables, partial(_draw, table, len(scores.datasets)), notes=scores.notes)


def compare_with_untrained(scores: Scores) -> StudyTable:
    """Return one line per variant: accuracy, accuracy of the untrained baseline, and mean difference."""
    lines = [
        (
            variant,
            seed_stats(scores.mean(variant)),
            seed_stats(scores.mean(baseline)),
            seed_stats(scores.gain(variant, baseline)),
        )
        for variant, baseline in scores.baseline.items()
    ]
    title = f"Accuracy in %, mean of {len(scores.datasets)} datasets"
    return StudyTable(title, ("variant", "pretrained", "untrained", "gain"), tuple(lines))


def _draw(table: StudyTable, datasets: int):
    names = [line[0] for line in table.lines]
    lines = {label: [line[column] for line in table.lines] for column, label in ((1, "pretrained"), (2, "untrained"))}
    return plot_panels([Panel("", "", f"accuracy in %, mean of {datasets} datasets", names, lines)])


if __name__ == "__main__":
    sys.exit(run_command(study_objectives, VariantsConfig, name="objectives", doc=__doc__))
