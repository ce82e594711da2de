"""The tests that need eight devices, in a pytest process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_tests_of_eight_devices_pass():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"NUTIME_TEST_DEVICES": "8"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/parallel"]
    run = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert run.returncode == 0, run.stdout[-8000:]
    assert " passed" in run.stdout
