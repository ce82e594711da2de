"""Cross-domain: what an encoder is worth on a domain that its corpus lacked."""

import csv
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from nutime_jax.config import PretrainConfig
from nutime_jax.data.corpus import find_sources
from nutime_jax.data.datasets import DatasetFiles, find_all_datasets
from nutime_jax.errors import InputError
from nutime_jax.report.charts import Panel, draw_panels
from nutime_jax.studies.configuration import DomainsConfig
from nutime_jax.studies.findings import Findings, Table, spread
from nutime_jax.studies.scores import Scores, check_probe, score_runs, set_table
from nutime_jax.studies.variants import Variant, choose, make_variant, plan_runs, train_runs

log = logging.getLogger(__name__)

WHOLE = "everything"
WITHOUT = "without-"

SET_TYPES = Path(__file__).with_name("set_types.csv")
"""Types of the sets of the UCR archive (Dau et al., The UCR time series archive, 2019: column Type of its summary), and of some of
the UEA archive (Bagnall et al., The UEA multivariate time series classification archive, 2018), under the archives' own names."""


def read_set_types() -> dict[str, str]:
    """Name of a set -> its type, as its archive calls it."""
    with SET_TYPES.open(newline="") as file:
        return {line["set"]: line["type"] for line in csv.DictReader(file)}


def study_domains(config: DomainsConfig, base: PretrainConfig, out: Path) -> Findings:
    """Trains on everything, and on everything but one domain, for every domain; compares the two on the domain left out.

    Args:
        config: see docs/configuration.md; `domains` names the types that make a domain.
        base: the configuration that the variants change.
        out: where runs and results are kept.

    Raises:
        InputError: the configuration will not do, or nothing came of it.
    """
    check_probe(config.probe)
    sets = find_all_datasets(config.probe.sources)
    domains = choose(config.domains, config.only, what="domains")
    members = sets_by_domain(domains, sets)
    whole = make_variant(WHOLE, base, config.pretrain)
    variants = [whole, *filter(None, (leave_out(whole, name, domains[name]) for name in members))]
    if len(variants) == 1:
        raise InputError("no domain has sets both in the corpus and among probe.sources; name further sources, or other domains")
    training = train_runs(plan_runs(variants, config.seeds, out))
    scores = score_runs(training.finished, sets, config.probe, out)
    table = compare_domains(scores, members)
    domain = {one: name for name, some in members.items() for one in some}
    about = {name: {"domain": domain.get(name, "")} for name in scores.sets}
    return Findings(
        {"table": table, "sets": set_table(scores, about)},
        partial(_draw, table),
        notes=(*scores.left_out, *training.failures),
    )


def sets_by_domain(domains: Mapping[str, Sequence[str]], sets: Sequence[DatasetFiles]) -> dict[str, tuple[str, ...]]:
    """Domain -> names of those of the sets whose type is one of its types; domains without any are left out.

    Raises:
        InputError: a type that no archive has, or that two domains have.
    """
    types = read_set_types()
    owners: dict[str, str] = {}
    for name, some in domains.items():
        for kind in some:
            if kind not in types.values():
                raise InputError(f"domain {name} has type {kind!r}; the archives have {', '.join(sorted(set(types.values())))}")
            if owners.setdefault(kind, name) != name:
                raise InputError(f"type {kind} is in the domains {owners[kind]} and {name}; leave it in one")
    found: dict[str, list[str]] = {name: [] for name in domains}
    for one in sets:
        kind = types.get(_plain_name(one))
        if kind is None:
            log.warning("the type of %s is not known; it is in no domain, and never left out", one.name)
        elif kind in owners:
            found[owners[kind]].append(one.name)
    return {name: tuple(some) for name, some in found.items() if some}


def leave_out(whole: Variant, domain: str, kinds: Sequence[str]) -> Variant | None:
    """The same run on a corpus without the sets of such types; None where the corpus has none, or nothing else."""
    types, data = read_set_types(), whole.config.data
    entries = [entry for entry in data.sources if entry]
    kept, gone = [], set()
    for entry, source in zip(entries, find_sources(entries, exclude=data.exclude), strict=True):
        names = [_plain_name(one) for one in source.sets]
        left = [name for name in names if types.get(name) in kinds]
        gone |= set(left)
        kept += [entry] if len(left) < len(names) else []
    if not gone or not kept:
        return None
    exclude = tuple(sorted(set(data.exclude) | gone))
    return make_variant(f"{WITHOUT}{domain}", whole.config, {"data": {"sources": tuple(kept), "exclude": exclude}})


def _plain_name(one: DatasetFiles) -> str:
    """The name of a set without the folder that tells it from another of its name."""
    return one.name.rpartition("/")[2]


def compare_domains(scores: Scores, members: Mapping[str, Sequence[str]]) -> Table:
    """A line a domain that was left out: accuracy on its sets without it, with everything, and untrained, and the differences."""
    lines = []
    for domain, some in members.items():
        method, sets = f"{WITHOUT}{domain}", [name for name in some if name in scores.sets]
        if not sets or method not in scores.values or WHOLE not in scores.values:
            continue
        twin = scores.twin[method]
        each = (spread(scores.mean(one, sets)) for one in (method, WHOLE, twin))
        lines.append((domain, len(sets), *each, spread(scores.gain(method, WHOLE, sets)), spread(scores.gain(method, twin, sets))))
    if not lines:
        raise InputError("no run with everything, or none without a domain, is left to compare; see the failures above")
    columns = ("domain", "sets", "left out", WHOLE, "untrained", f"left out - {WHOLE}", "left out - untrained")
    return Table("Accuracy in % on the sets of a domain", columns, tuple(lines))


def _draw(table: Table):
    lines = {table.columns[place]: [line[place] for line in table.lines] for place in (2, 3, 4)}
    return draw_panels([Panel("", "", "accuracy in % on the domain", [line[0] for line in table.lines], lines)])
