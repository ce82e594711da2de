"""Progress in a log: lines with the time, without carriage returns."""

import re
import sys

import pytest

from nutime_jax.progress import ProgressBar


def test_a_log_has_lines(capfd):
    with ProgressBar(desc="sweep", unit=" cells") as bar:
        bar.total = 2
        bar.update()
        ProgressBar.write("a message", file=sys.stderr)
        bar.set_postfix_str("GunPoint", refresh=False)
        bar.update()
    err = capfd.readouterr().err
    assert "\r" not in err
    first, message, last = err.splitlines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{time} sweep: 0 cells \[.*\]", first)
    assert message == "a message"
    assert re.fullmatch(rf"{time} sweep: 100% 2/2 \[.* cells/s, GunPoint\]", last)


@pytest.mark.parametrize("options", [{"disable": True}, {"disable": None}])
def test_a_hidden_bar_prints_nothing(capfd, options):
    assert list(ProgressBar(range(3), **options)) == [0, 1, 2]
    assert capfd.readouterr().err == ""
