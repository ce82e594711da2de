"""Domains excluded from pretraining: accuracy on the datasets of the domain, with and without the domain in the corpus.

    python -m studies.domains --out=results/domains

Domains are types of the UCR and UEA archives; the configuration maps each domain to types. Only the corpus changes: steps,
batches and probes are the same. The untrained baseline is a third column.
"""

import csv
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nutime_jax.config import PretrainConfig
from nutime_jax.data.datasets import DatasetFiles, find_all_datasets
from nutime_jax.data.sources import find_sources
from nutime_jax.errors import InputError
from nutime_jax.options import option
from studies.charts import Panel, plot_panels
from studies.command import run_command
from studies.report import StudyReport, StudyTable, seed_stats
from studies.scores import Scores, dataset_table, train_and_score
from studies.variants import StudyConfig, Variant, make_variant, select_variants

log = logging.getLogger(__name__)

FULL = "everything"
WITHOUT = "without-"

DATASET_TYPES = Path(__file__).with_name("set_types.csv")
"""Types of the datasets of the UCR archive (Dau et al., The UCR time series archive, 2019: column Type of its summary), and of some
of the UEA archive (Bagnall et al., The UEA multivariate time series classification archive, 2018), under the archives' names."""


@dataclass(frozen=True)
class DomainsConfig(StudyConfig):
    """Configuration of studies/domains.py."""

    domains: dict[str, tuple[str, ...]] = option(
        {}, "Types of datasets of each domain by its name, as archives call them (studies/set_types.csv)."
    )


def read_dataset_types() -> dict[str, str]:
    """Return name of a dataset -> type in its archive."""
    with DATASET_TYPES.open(newline="") as file:
        return {line["set"]: line["type"] for line in csv.DictReader(file)}


def study_domains(config: DomainsConfig, base: PretrainConfig, out: Path) -> StudyReport:
    """Train on the full corpus and, for every domain, without it; compare accuracies on the excluded domain.

    Args:
        config: see docs/configuration.md.
        base: the configuration that the variants change.
        out: folder of runs and results.

    Raises:
        InputError: the configuration is not valid, or no run has results.
    """
    datasets = find_all_datasets(config.probe.sources)
    domains = select_variants(config.domains, config.selected, section="domains")
    names_of = datasets_by_domain(domains, datasets)
    full = make_variant(FULL, base, config.pretrain)
    variants = [full, *filter(None, (exclude_domain(full, name, domains[name]) for name in names_of))]
    if len(variants) == 1:
        raise InputError("no domain has datasets both in the corpus and in probe.sources; add sources, or choose other domains")
    scores = train_and_score(variants, datasets, config, out)
    table = compare_domains(scores, names_of)
    domain_of = {name: domain for domain, names in names_of.items() for name in names}
    properties = {name: {"domain": domain_of.get(name, "")} for name in scores.datasets}
    tables = {"table": table, "datasets": dataset_table(scores, properties)}
    return StudyReport(tables, partial(_draw, table), notes=scores.notes)


def datasets_by_domain(domains: Mapping[str, Sequence[str]], datasets: Sequence[DatasetFiles]) -> dict[str, tuple[str, ...]]:
    """Return domain -> names of the datasets of its types, without empty domains.

    Raises:
        InputError: a type is unknown, or is in two domains.
    """
    types = read_dataset_types()
    owners: dict[str, str] = {}
    for domain, kinds in domains.items():
        for kind in kinds:
            if kind not in types.values():
                raise InputError(f"domain {domain} has type {kind!r}; the archives have {', '.join(sorted(set(types.values())))}")
            if owners.setdefault(kind, domain) != domain:
                raise InputError(f"type {kind} is in the domains {owners[kind]} and {domain}; remove it from one of them")
    found: dict[str, list[str]] = {domain: [] for domain in domains}
    for files in datasets:
        kind = types.get(_archive_name(files))
        if kind is None:
            log.warning("the type of %s is unknown; the dataset is in no domain and is never excluded", files.name)
        elif kind in owners:
            found[owners[kind]].append(files.name)
    return {domain: tuple(names) for domain, names in found.items() if names}


def exclude_domain(full: Variant, domain: str, kinds: Sequence[str]) -> Variant | None:
    """Return the variant without datasets of these types; None if the corpus has none of them, or nothing else."""
    types, data = read_dataset_types(), full.config.data
    entries = [entry for entry in data.sources if entry]
    kept, excluded = [], set()
    for entry, source in zip(entries, find_sources(entries, exclude=data.exclude), strict=True):
        names = [_archive_name(files) for files in source.sets]
        of_domain = {name for name in names if types.get(name) in kinds}
        excluded |= of_domain
        if not of_domain.issuperset(names):
            kept.append(entry)
    if not excluded or not kept:
        return None
    exclude = tuple(sorted(set(data.exclude) | excluded))
    return make_variant(f"{WITHOUT}{domain}", full.config, {"data": {"sources": tuple(kept), "exclude": exclude}})


def _archive_name(files: DatasetFiles) -> str:
    """Return the name of a dataset without the folder that distinguishes datasets of the same name."""
    return files.name.rpartition("/")[2]


def compare_domains(scores: Scores, names_of: Mapping[str, Sequence[str]]) -> StudyTable:
    """Return one line per excluded domain: accuracy on its datasets without it, with everything and untrained, and differences."""
    lines = []
    for domain, names in names_of.items():
        method, datasets = f"{WITHOUT}{domain}", [name for name in names if name in scores.datasets]
        if not datasets or method not in scores.values or FULL not in scores.values:
            continue
        baseline = scores.baseline[method]
        accuracies = [seed_stats(scores.mean(name, datasets)) for name in (method, FULL, baseline)]
        gains = [seed_stats(scores.gain(method, name, datasets)) for name in (FULL, baseline)]
        lines.append((domain, len(datasets), *accuracies, *gains))
    if not lines:
        raise InputError("no run with everything, or no run without a domain, is left to compare; see the failures above")
    columns = ("domain", "datasets", "excluded", FULL, "untrained", f"excluded - {FULL}", "excluded - untrained")
    return StudyTable("Accuracy in % on the datasets of a domain", columns, tuple(lines))


def _draw(table: StudyTable):
    lines = {table.columns[column]: [line[column] for line in table.lines] for column in (2, 3, 4)}
    return plot_panels([Panel("", "", "accuracy in % on the domain", [line[0] for line in table.lines], lines)])


if __name__ == "__main__":
    sys.exit(run_command(study_domains, DomainsConfig, name="domains", doc=__doc__))
