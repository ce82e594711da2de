import os
import subprocess
import sys

import jax
import pytest

from nutime_jax.compilation_cache import enable_compilation_cache

CODE = """
import jax
from nutime_jax.compilation_cache import enable_compilation_cache
assert jax.config.jax_compilation_cache_dir is None
enable_compilation_cache()
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(1.0)
"""


def run(tmp_path, **environment):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XDG_", "XLA_"))}
    inherited |= {"HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-W", "error", "-c", CODE]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_programs_are_kept_in_the_users_cache(tmp_path):
    folder = run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert folder.startswith(f"{tmp_path / 'cache' / 'nutime_jax' / 'jax-'}")
    assert os.listdir(folder)
    assert run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")) == folder


def test_a_cache_that_cannot_be_written_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file")) == "None"


@pytest.mark.parametrize(("directory", "enabled"), [("mine", True), (None, False)])
def test_what_the_user_has_chosen_stays(directory, enabled):
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = [getattr(jax.config, name) for name in names]
    try:
        for name, value in zip(names, (directory, enabled), strict=True):
            jax.config.update(name, value)
        enable_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == directory
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)
