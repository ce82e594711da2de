"""Progress in a log: lines with the time, without carriage returns."""

import re
import sys

import pytest

from nutime_jax.progress import ProgressBar, track
from tests.encoders import smoke_encoder


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


def test_a_notebook_has_a_bar(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert list(ProgressBar(range(2), desc="sweep")) == [0, 1]
    assert "\rsweep: 100%|" in capfd.readouterr().err


@pytest.mark.parametrize("options", [{"disable": True}, {"disable": None}])
def test_a_hidden_bar_prints_nothing(capfd, options):
    assert list(ProgressBar(range(3), **options)) == [0, 1, 2]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("shown", "terminal", "visible"), [(True, False, True), (None, True, False), (None, False, False), (False, True, False)]
)
def test_a_loop_has_a_bar_where_someone_sees_it(capfd, monkeypatch, shown, terminal, visible):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert list(track(range(3), total=3, desc="embedding", unit=" series", shown=shown)) == [0, 1, 2]
    assert ("embedding" in capfd.readouterr().err) == visible  # the loop is over before an automatic bar appears


def test_embed_shows_progress_on_request(capfd):
    smoke_encoder().embed([[1.0, 2.0, 3.0]], progress=True)
    assert "embedding:   0% 0/1" in capfd.readouterr().err
