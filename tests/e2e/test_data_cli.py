"""`nutime data` says what files hold, and names what it cannot read."""

import json
import sys

import numpy as np
import pytest

from nutime_jax.cli.main import main


def run(capfd, *arguments):
    status = main(["data", *map(str, arguments)])
    out, err = capfd.readouterr()
    return status, out, [line for line in err.splitlines() if line.startswith("nutime: ")]


@pytest.mark.parametrize(("arguments", "words"), [(["data"], "inspect"), (["data", "inspect"], "nutime data inspect bundled")])
def test_help(capfd, arguments, words):
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code == 0
    assert words in capfd.readouterr().out


@pytest.mark.parametrize("arguments", [["data"], ["data", "inspect"], ["data", "inspct"], ["data", "inspect", "GunPoint", "--jsn=x"]])
def test_a_wrong_command_is_rejected(capfd, arguments):
    assert main(arguments) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("command", ["pretrain", "evaluate", "sweep", "fit", "embed", "predict", "data inspect", "data build"])
def test_columns_are_named_on_every_command_that_reads_tables(capfd, command):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    out = capfd.readouterr().out
    assert [flag for flag in ("--id_column", "--time_column", "--label_column", "--value_columns") if flag not in out] == []


def test_one_set_has_a_sheet(capfd):
    status, out, sentences = run(capfd, "inspect", "GunPoint")
    assert (status, sentences) == (0, [])
    assert out.startswith("GunPoint (ts)\n  train: ")
    assert [line.split() for line in out.splitlines() if line.startswith(("cases  ", "length"))] == [
        ["cases", "50", "150"],
        ["length", "150", "150"],
    ]


def test_what_cannot_be_read_is_named_and_the_others_described(capfd, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "long.csv").write_text("id,time,v,label\n1,2,5,a\n1,1,4,a\n")
    np.savez(tmp_path / "inf.npz", X_train=[[1, np.inf]])
    np.savez(tmp_path / "flat.npz", values=[1])
    status, out, sentences = run(capfd, "inspect", tmp_path, "ArrowHead", "--json", tmp_path / "facts.json")
    assert status == 2
    assert sentences == ["nutime: 2 of 4 datasets cannot be read; fix or remove them"]
    for words in ("ArrowHead", "long", "2 sets", "bad.csv, line 3 is ragged", "case 0 of", "infinite"):
        assert words in out
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert [one["name"] for one in facts["sets"]] == ["long", "ArrowHead"]
    assert sorted(facts["refused"]) == ["bad", "inf"]


def test_one_set_that_cannot_be_read_is_one_sentence(capfd, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,two\n")
    status, out, sentences = run(capfd, "inspect", tmp_path / "bad.csv")
    assert (status, out, len(sentences)) == (2, "", 1)
    assert "bad.csv, line 2, column 'b': 'two' is not a number" in sentences[0]


def test_no_matplotlib_is_a_sentence(capfd, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, sentences = run(capfd, "inspect", "GunPoint", "--plot", tmp_path / "a.png")
    assert status == 2
    assert "pip install 'nutime_jax[report]'" in sentences[0]
    assert "GunPoint" in out


def test_columns_are_named_and_described(capfd, tmp_path):
    (tmp_path / "t.csv").write_text("pump;round;a;age;failure\n1;1;1,5;9;x\n1;2;2,5;9;x\n1;4;3,5;8;x\n2;1;4,5;9;\n2;2;2,5;8;\n")
    roles = ["--id_column=pump", "--time_column=round", "--label_column=failure", "--value_columns=[a-d]"]
    assert main(["data", "inspect", str(tmp_path / "t.csv"), *roles]) == 0
    out = capfd.readouterr().out
    for line in ("column 'pump': id", "column 'round': time", "column 'a': channel", "column 'age': ignored", "column 'failure': label"):
        assert line in out
    assert "missing between known values                 16.7%" in out
    assert "cases without a label                            1" in out
