"""What is installed is what is here, whichever way it is installed."""

import configparser
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("setuptools", "_distutils_hack", "ml_collections", "absl", "yaml")
"""Imported to build the package and to read a configuration; taken from this environment, so that nothing is downloaded."""


def test_every_package_is_listed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "nutime_jax").rglob("*.py")}
    assert set(listed) == found | {"nutime_jax.configs"}


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_configurations_are_found_once_installed(tmp_path, editable):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, source, ignore=ignore)
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (packages,) = (environment / "lib").glob("python*/site-packages")
    needed = [Path(importlib.util.find_spec(name).origin).parent for name in NEEDED]
    for path in (*needed, *needed[0].parent.glob("setuptools-*.dist-info")):
        (packages / path.name).symlink_to(path)
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, *(["-e"] if editable else []), source], check=True, timeout=120)
    command = [environment / "bin" / "nutime", "pretrain", "--config=quickstat", f"--workdir={tmp_path / 'run'}"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 2
    assert "did you mean 'quickstart'?" in run.stderr
    weights = "from pathlib import Path; import nutime_jax as n; print(*(Path(n.__file__).parent / 'weights' / 'nutime-small').glob('*'))"
    found = subprocess.run([python, "-c", weights], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert sorted(Path(one).name for one in found.split()) == ["card.md", "config.json", "weights.safetensors"]
    code = "from nutime_jax.config import load_config, __file__; print(load_config('smoke').name, __file__)"
    where = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert where.startswith(f"smoke {source if editable else environment}")
