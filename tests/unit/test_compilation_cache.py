import os
import subprocess
import sys

import pytest

CODE = """
import jax
from nutime_jax.compilation_cache import enable_compilation_cache
assert jax.config.jax_compilation_cache_dir == {before!r}
enable_compilation_cache()
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(1.0)
"""


def run(tmp_path, before=None, **environment):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XDG_", "XLA_"))}
    inherited |= {"HOME": str(tmp_path / "home"), "JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-W", "error", "-c", CODE.format(before=before)]
    done = subprocess.run(command, env=inherited, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_programs_are_kept_in_the_users_cache(tmp_path):
    folder = run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert folder.startswith(f"{tmp_path / 'cache' / 'nutime_jax' / 'jax-'}")
    assert os.listdir(folder)
    assert run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache")) == folder


@pytest.mark.parametrize("case", ["chosen", "disabled", "blocked"])
def test_what_the_user_has_chosen_stays_and_what_cannot_be_written_is_left(tmp_path, case):
    if case == "chosen":
        mine = str(tmp_path / "mine")
        assert run(tmp_path, mine, JAX_COMPILATION_CACHE_DIR=mine) == mine
    elif case == "disabled":
        assert run(tmp_path, JAX_ENABLE_COMPILATION_CACHE="false") == "None"
    else:
        (tmp_path / "file").write_text("")
        assert run(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file")) == "None"
