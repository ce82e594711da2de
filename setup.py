"""Records the commit that a wheel is built from; everything else is in setup.cfg."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithCommit(build_py):
    def run(self):
        super().run()
        try:
            git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return  # built outside a checkout: the commit stays unknown
        if not self.editable_mode:
            (Path(self.build_lib) / "nutime_jax" / "COMMIT").write_text(git.stdout)


setup(cmdclass={"build_py": BuildWithCommit})
