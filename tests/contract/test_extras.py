"""The base install embeds, probes, fits estimators and reads CSV; what needs an extra names it in one sentence."""

import ast
import configparser
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nutime_jax"
BASE_LIMIT = 10
OWN = "nutime_jax"


def read_requirements() -> dict[str, set[str]]:
    """Names of the direct requirements, by extra; "" is the base install."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    sections = {"": parser["options"]["install_requires"], **parser["options.extras_require"]}
    names = {extra: re.findall(r"^([\w.-]+)", text, re.MULTILINE) for extra, text in sections.items()}
    return {extra: {normalise(name) for name in found} - {normalise(OWN)} for extra, found in names.items()}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_modules() -> set[str]:
    """Top-level modules of other distributions that the package and its configurations import."""
    found = set()
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "configs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {OWN}


REQUIREMENTS = read_requirements()
DISTRIBUTIONS = packages_distributions() | {name: [name] for name in ("gcsfs", "aiohttp", "huggingface_hub", "ray", "torch")}
DISTRIBUTIONS |= {"google": ["google-auth"]}
"""Distributions of each module; those that a test machine may lack, and that of a shared name, are given."""
BASE_MODULES = {name for name, owners in DISTRIBUTIONS.items() if {normalise(owner) for owner in owners} & REQUIREMENTS[""]}


def test_every_imported_distribution_is_declared():
    declared = set.union(*REQUIREMENTS.values())
    undeclared = {name for name in imported_modules() if not {normalise(owner) for owner in DISTRIBUTIONS[name]} & declared}
    assert undeclared == set()


def test_the_base_install_is_small_and_has_only_what_is_imported():
    imported = {normalise(owner) for name in imported_modules() for owner in DISTRIBUTIONS[name]}
    assert len(REQUIREMENTS[""]) <= BASE_LIMIT
    assert REQUIREMENTS[""] - imported == set()


BLOCK = """
import sys
from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: None if name in BLOCKED else find_spec(name, path, target)
"""


def run_in_base_install(code: str) -> subprocess.CompletedProcess:
    """Run code in a process that finds no module of an extra."""
    code = f"BLOCKED = {imported_modules() - BASE_MODULES}\n{BLOCK}\n{code}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_base_install_embeds_fits_and_reads(tmp_path):
    run = run_in_base_install(f"""
import numpy as np
from nutime_jax import NuTimeAnomalyDetector, NuTimeClassifier, NuTimeClusterer, load_encoder
from nutime_jax.cli.main import main
series = np.random.default_rng(0).normal(size=(12, 40)) + 3 * (np.arange(12) % 2)[:, None]
labels = np.arange(12) % 2
np.savetxt("{tmp_path}/series.csv", series, delimiter=",")
assert main(["embed", "--encoder=nutime-small", "--data={tmp_path}/series.csv", "--out={tmp_path}/f.csv"]) == 0
assert (NuTimeClassifier().fit(series, labels).predict(series) == labels).mean() > 0.5
assert len(NuTimeClusterer(n_clusters=2).fit_predict(series)) == 12
assert NuTimeAnomalyDetector().fit(series).score_samples(series).shape == (12,)
assert load_encoder("nutime-small").embed(series).shape[0] == 12
""")
    assert run.returncode == 0, run.stderr
    assert len((tmp_path / "f.csv").read_text().splitlines()) == 13


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["pretrain", "--config=smoke", "--workdir=W"], "train"),
        (["embed", "--encoder=nutime-small", "--data=GunPoint", "--split=test", "--out=f.npz"], "data"),
        (["plot", "nme", "--encoder=nutime-small", "--out=f.svg"], "report"),
        (["export", "--encoder=nutime-small", "--out=E"], "export"),
    ],
)
def test_a_missing_extra_is_one_sentence(tmp_path, arguments, extra):
    run = run_in_base_install(f"""
import os
os.chdir({str(tmp_path)!r})
sys.path.insert(0, {str(ROOT)!r})
from nutime_jax.cli.main import main
sys.exit(main({arguments}))
""")
    sentences = [line for line in run.stderr.splitlines() if line.startswith("nutime: ")]
    assert (run.returncode, len(sentences)) == (2, 1), run.stderr
    assert sentences[0].endswith(f"is not installed; pip install 'nutime_jax[{extra}]'")
