"""Answers a question by many small runs: variants of one pretraining, trained and probed alike, at several seeds.

    nutime study scales --out=studies/scales
    nutime study objectives --out=studies/objectives --config.pretrain.data.sources=bundled,archives/ucr
    nutime study windows --out=studies/windows --config.only=8,mixed --config.seeds=0

The folder holds a folder a run, the cells of the probes, and what came of them: table.md, CSV files and figure.svg. Stopped
at any moment, the same command goes on where it was: runs that are finished are not repeated, nor are cells. What is not
there of the tables is made again from the runs. `nutime study STUDY --help` says what a study asks and how it measures.
"""

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nutime_jax.cli.arguments import user_path
from nutime_jax.config import PretrainConfig, load_config
from nutime_jax.studies.configuration import DomainsConfig, ScalesConfig, StudyConfig, VariantsConfig, WindowsConfig

if TYPE_CHECKING:
    from nutime_jax.studies.findings import Findings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    for name, study in STUDIES.items():
        one = studies.add_parser(
            name,
            help=study.summary,
            description=inspect.getdoc(study.run),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        one.add_argument("--config", default=f"study_{name}", help=f"study_{name} (default), or a path to a .py file like it")
        one.set_defaults(schema=study.schema)
        one.add_argument("--out", required=True, type=user_path, metavar="FOLDER", help="where runs and results go")


def run(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.overrides, schema=args.schema)
    base = load_config(config.base)
    from nutime_jax.studies.findings import say, write_findings

    findings = STUDIES[args.study].run(config, base, args.out)
    written = write_findings(findings, args.out)
    print(f"\n{say(findings)}\n")
    if not any(path.suffix == ".svg" for path in written):
        print("without a figure, since matplotlib is not installed; pip install 'nutime_jax[report]' brings it")
    print(f"written to {', '.join(map(str, written))}")


def _scales(config: ScalesConfig, base: PretrainConfig, out: Path) -> "Findings":
    """Scale coverage of encoders of scalars: how many scales, how far apart, trained or not.

    Without training, over draws of the weights and magnitudes from 1e-8 to 1e8: how far the embeddings of x and -x, and of
    x and 2x, are apart; and how well a ridge and a 5-nearest-neighbour decoder tell sign and magnitude of scalars that they
    have not seen. Then every variant is pretrained, and probed on sets multiplied by powers of ten in both splits;
    --config.seeds= leaves that out.
    """
    from nutime_jax.studies.scales import study_scales

    return study_scales(config, base, out)


def _windows(config: WindowsConfig, base: PretrainConfig, out: Path) -> "Findings":
    """Lengths of windows, pretrained alike: accuracy on sets grouped by the length, the periodicity and the period of their series.

    Properties of a set are medians over its training series. The period is at the highest peak of the autocorrelation beyond
    its first negative value; the periodicity is the height of that peak.
    """
    from nutime_jax.studies.windows import study_windows

    return study_windows(config, base, out)


def _domains(config: DomainsConfig, base: PretrainConfig, out: Path) -> "Findings":
    """Whole domains left out of pretraining: accuracy on the sets of the domain, beside a run with everything and the untrained twin.

    Domains are types of the UCR and UEA archives; which make a domain, the configuration says. Only the corpus changes:
    steps, batches and probes are the same.
    """
    from nutime_jax.studies.domains import study_domains

    return study_domains(config, base, out)


def _objectives(config: VariantsConfig, base: PretrainConfig, out: Path) -> "Findings":
    """Objectives and encoders of scalars: the same corpus, steps and probe, at several seeds, each beside its untrained twin."""
    from nutime_jax.studies.objectives import study_objectives

    return study_objectives(config, base, out)


class Study(NamedTuple):
    """A study of `nutime study`.

    run: (configuration, configuration of the pretraining that it changes, folder) -> what was found.
    """

    summary: str
    schema: type[StudyConfig]
    run: Callable[[Any, PretrainConfig, Path], "Findings"]


STUDIES = {
    "scales": Study("which magnitudes an encoder of scalars tells apart", ScalesConfig, _scales),
    "windows": Study("which length of a window serves which series", WindowsConfig, _windows),
    "domains": Study("what an encoder is worth on a domain that its corpus lacked", DomainsConfig, _domains),
    "objectives": Study("objectives and encoders of scalars, side by side", VariantsConfig, _objectives),
}
