"""What README tells a reader to type exists, and is understood."""

import re
import shlex
from pathlib import Path

import pytest

from nutime_jax.cli.main import _parse
from nutime_jax.config import load_config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def shell_commands():
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", README, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("&&") if part.strip() and not line.startswith("#")]


def docstring_commands():
    return [
        line.strip()
        for path in (ROOT / "configs").glob("*.py")
        for line in path.read_text().splitlines()
        if re.match(r" *nutime (pretrain|evaluate|sweep|report|data)", line)
    ]


def test_the_two_commands_are_there():
    commands = shell_commands()
    assert "pip install ." in commands
    assert "nutime pretrain --config=quickstart --workdir=runs/quickstart" in commands
    assert "pip install '.[test]'" in commands
    assert "pytest -n auto" in commands


@pytest.mark.parametrize("command", [c for c in shell_commands() + docstring_commands() if c.startswith("nutime ")])
def test_commands_parse(command):
    args = _parse(shlex.split(command)[1:])
    if hasattr(args, "config"):
        load_config(args.config, args.overrides, schema=args.schema)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_ci_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert "'.[test]'" in script
    assert re.search(r"^\S*pytest -n auto$", script, re.MULTILINE)
