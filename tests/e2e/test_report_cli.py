"""End-to-end tests of `nutime report`."""

import csv

import pytest

from nutime_jax.cli.main import main
from nutime_jax.evaluation.results import Failure, write_failures, write_rows
from tests.unit.test_page import Reader, many
from tests.unit.test_summary import row


def report(capfd, *arguments):
    status = main(["report", *map(str, arguments)])
    out, err = capfd.readouterr()
    return status, out, [line for line in err.splitlines() if line.startswith("nutime: ")]


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    write_rows(many(), folder / "results.csv")
    write_failures([Failure("A", "set99", "ridge", "", "set set99 has no test split")], folder / "failures.csv")
    write_rows([row("minirocket", f"set{i}", 0.5, protocol="baseline") for i in range(12)], tmp_path / "baselines.csv")
    (tmp_path / "paper.csv").write_text("set,P,Q\n" + "".join(f"set{i},{40 + i},90\n" for i in range(12)))
    return tmp_path


@pytest.mark.slow
def test_tables_become_a_page_and_a_csv(capfd, results):
    page = results / "page.html"
    arguments = [results / "sweep", results / "baselines.csv", f"--published_table={results / 'paper.csv'}:P", f"--out={page}"]
    status, out, _ = report(capfd, *arguments, "--reference=minirocket", "--scatter=P,A")
    assert status == 0
    assert out == f"written to {page}, its values to {page.with_suffix('.csv')}\n"
    reader = Reader(page.read_text())
    assert "From results.csv, baselines.csv: 5 methods on 12 datasets." in reader.words
    assert "set set99 has no test split" in reader.words
    assert [alt for alt in reader.values("alt") if "minirocket" in alt] == [
        f"{method} against minirocket, one point per dataset" for method in "PA"
    ]
    assert reader.tables[0][0][3] == "win / tie / loss against minirocket"
    with open(page.with_suffix(".csv"), newline="") as file:
        lines = {line["label"]: line for line in csv.DictReader(file)}
    assert list(lines) == ["A", "B", "C", "D", "minirocket", "P"]
    assert lines["P"]["published"] == "True"
    assert float(lines["P"]["mean"]) == pytest.approx(0.455, abs=1e-12)
    assert (lines["P"]["wins"], lines["P"]["ties"], lines["P"]["losses"]) == ("1", "1", "10")


def test_methods_can_be_omitted_and_the_reference_is_not_a_baseline(capfd, results):
    status, _, _ = report(capfd, results / "baselines.csv", results / "sweep", "--only=minirocket,B", f"--out={results / 'page.html'}")
    assert status == 0
    tables = Reader((results / "page.html").read_text()).tables
    assert tables[1][0] == ["dataset (%)", "minirocket", "B"]
    assert tables[0][0][3] == "win / tie / loss against B"


def test_shards_of_a_sweep_are_one_table_once_all_are_there(capfd, results):
    rows, page = many(), results / "page.html"
    assert report(capfd, results / "sweep", f"--out={results / 'whole.html'}")[0] == 0
    shards = results / "shards"
    shards.mkdir()
    write_rows(rows[::2], shards / "results_0_of_2.csv")
    status, _, (sentence,) = report(capfd, shards, f"--out={page}")
    assert status == 2
    assert "contains results_0_of_2.csv, but not all shards of one sweep. Run the others, or name the tables." in sentence
    write_rows(rows[1::2], shards / "results_1_of_2.csv")
    write_failures([Failure("A", "set98", "ridge", "", "set set98 has no labels")], shards / "failures_1_of_2.csv")
    assert report(capfd, shards, f"--out={page}")[0] == 0
    assert "set set98 has no labels" in Reader(page.read_text()).words
    whole, ours = (sorted(path.with_suffix(".csv").read_text().splitlines()) for path in (results / "whole.html", page))
    assert ours == whole
    write_rows(rows, shards / "results_2_of_3.csv")
    assert report(capfd, shards, f"--out={page}")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv"], "none.csv cannot be read as a table of results"),
        (["paper.csv"], "paper.csv is not a table of results: column method is missing"),
        (["empty.csv"], "The tables of results contain no rows"),
        (["nan.csv"], "accuracy of A (ridge) on x is nan"),
        (["sweep", "--reference=E"], "Method 'E' is not in the tables. Choose one of 'A', 'B', 'C', 'D'"),
        (["sweep", "--scatter=E"], "Method 'E' is not in the tables"),
        (["sweep", "--only=E"], "No row contains 'E' in its method, protocol or setting. Methods: A, B, C, D"),
        (["sweep", "--published_table=none.csv"], "none.csv is not readable as a published table"),
        (["f1.csv", "--published_table=paper.csv"], "The results contain no accuracies on default splits"),
        (["sweep", "--fetch_published=HC2"], "Published results 'HC2' are unknown. Write aeon:NAME"),
        (["one.csv", "two.csv"], "Method 'A' stands for two encoders (runs/a weights=ab and runs/b weights=cd). Name one"),
        (["sweep", "--out=results.csv"], "--out is results.csv, a table"),
        (["sweep", "--out=sweep/results.html"], "The summary would replace sweep/results.csv, which is not a summary"),
        (["sweep", "--out=nowhere/page.html"], "Cannot write nowhere/page.html (No such file or directory)"),
    ],
)
def test_unusable_results_are_rejected(capfd, results, monkeypatch, arguments, message):
    monkeypatch.chdir(results)
    write_rows([], results / "empty.csv")
    for name, encoder in (("one", "runs/a weights=ab"), ("two", "runs/b weights=cd")):
        write_rows([row("A", name, 0.5, encoder=encoder)], results / f"{name}.csv")
    write_rows([row("A", "x", float("nan"))], results / "nan.csv")
    write_rows([row("A", "x", 0.5, metric="f1")], results / "f1.csv")
    status, _, sentences = report(capfd, *arguments)
    assert status == 2
    assert len(sentences) == 1
    assert message in sentences[0]
    assert not (results / "report.html").exists()


def test_help_explains_the_flags(capfd):
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--help"])
    out = capfd.readouterr().out
    assert "--published_table" in out
    assert "one self-contained file" in out
