"""README: its commands parse and run, its snippets print what it says, its size is limited."""

import re
import shlex

import numpy as np
import pytest

from nutime_jax.cli.main import _parse
from nutime_jax.config import load_config
from tests.contract.pages import ROOT, blocks, run_page, shell_commands

PAGE = ROOT / "README.md"
README = PAGE.read_text()


def docstring_commands():
    return [
        line.strip()
        for path in (ROOT / "configs").glob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r" *nutime (pretrain|evaluate|sweep|report|data)", line)
    ]


def test_the_two_commands_are_there():
    commands = shell_commands(PAGE)
    assert "pip install '.[train]'" in commands
    assert "nutime pretrain --config=quickstart --workdir=runs/quickstart" in commands
    assert "pip install '.[test]'" in commands
    assert "pytest -n auto" in commands


def test_readme_is_short_and_starts_with_code():
    lines = README.splitlines()
    assert len(lines) <= 200
    assert len(README) <= 12_000
    assert next(i for i, line in enumerate(lines, 1) if line.startswith("pip install")) <= 25
    assert lines.index("```python") + 1 <= 35


@pytest.mark.parametrize("command", [c for c in shell_commands(PAGE) + docstring_commands() if c.startswith("nutime ")])
def test_commands_parse(command):
    args = _parse(shlex.split(command)[1:])
    if hasattr(args, "config"):
        load_config(args.config, args.overrides, schema=args.schema)


@pytest.mark.slow
def test_readme_runs(tmp_path, monkeypatch):
    (tmp_path / "my_folder").mkdir()
    np.savez(tmp_path / "my_folder" / "series.npz", X=np.random.default_rng(0).normal(size=(24, 64)))
    monkeypatch.chdir(tmp_path)
    # `plan` compiles for a TPU slice; /shared is a folder of a cluster. Tests of plan and of pods run them.
    elsewhere = "nutime pretrain --config=nutime_paper --workdir=/shared/base --multihost=auto"
    text = README.replace(elsewhere, "")
    assert text != README
    page = tmp_path / "README.md"
    page.write_text(text)
    _, printed = run_page(page, skip=("plan",))
    assert [out for out in printed if out] == [text for language, text in blocks(PAGE) if language == "text"]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_ci_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"'\.\[(\w+,)*test(,\w+)*\]'", script)
    assert re.search(r"^\S*pytest -n auto$", script, re.MULTILINE)
