"""Part of benchmarks/damage.py: damaged and hostile files, in the time of a test."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import damage

ROOT = Path(__file__).parents[2]


def test_damaged_files_are_read_as_they_were_or_refused_with_a_sentence(tmp_path):
    figures = damage.drill_damages(tmp_path, count=33, draw=random.Random(1))
    assert figures["failed"] == []
    assert sum(figures["outcomes"].values()) == 33
    assert all(figures["outcomes"].values())


@pytest.mark.slow
def test_hostile_files_are_refused_in_time_and_never_run(tmp_path):
    """In a process of its own, whose memory is limited."""
    drill = f"import json; from benchmarks.damage import *; print(json.dumps(drill_hostile(Path({str(tmp_path)!r}))))"
    done = subprocess.run([sys.executable, "-c", drill], cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures == {"tried": 337, "failed": [], "executed": False}
