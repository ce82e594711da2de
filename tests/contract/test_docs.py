"""Pages of docs/: examples run, commands parse, links resolve, generated pages are up to date."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from scipy.io import savemat

from benchmarks.expect import RESULTS, render
from benchmarks.records import split_page
from docs import make_api, make_configuration, make_settings
from nutime_jax.cli.main import COMMANDS, _parse, main
from nutime_jax.config import load_config
from nutime_jax.data.datasets import find_datasets
from nutime_jax.data.formats import READERS
from nutime_jax.data.inputs import read_series
from nutime_jax.evaluation.protocols.probes import PROBES
from nutime_jax.evaluation.protocols.registry import PROTOCOLS
from nutime_jax.evaluation.results import read_rows
from nutime_jax.loading import load_encoder
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS
from nutime_jax.objectives import OBJECTIVES
from nutime_jax.options import options
from tests.contract.pages import QUICK, ROOT, blocks, run_page, shell_commands
from tests.encoders import smoke_encoder
from tests.unit.test_convert import SHAPES, draw

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
WRITTEN = [ROOT / "README.md", *(page for page in PAGES if page.name not in ("api.md", "configuration.md"))]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder to read in, where the shipped encoder is one that runs in no time."""
    smoke_encoder().save(tmp_path / "weights" / "nutime-small")
    monkeypatch.setattr("nutime_jax.loading.WEIGHTS", tmp_path / "weights")
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


@pytest.mark.slow
def test_guide_data_and_evaluation_run(desk):
    # What stands in for the official checkpoint: its names, one block, one head of 64.
    wide = {"1.pos_embed": (1, 40, 8)}
    wide |= {"1.transformer.layers.0.fn.to_qkv.weight": (192, 8), "1.transformer.layers.0.fn.to_out.0.weight": (8, 64)}
    state = draw(SHAPES | wide) | {"0.multi_bias_encoder.scales": np.float32([0.1, 1, 10])}
    save_file(state, "checkpoint.safetensors")

    names, _ = run_page(DOCS / "guide.md")
    assert names["features"].shape == (2, 32)
    assert names["accuracy"] > 0.5
    assert names["frame"].columns[:3].tolist() == ["id", "label", "f0"]
    assert len(names["folds"]) == 5
    predicted = pd.read_csv("predicted.csv", index_col="id").label.astype(str)
    assert predicted.to_dict() == names["predicted"].to_dict()
    assert predicted.index[0] == "new-0"
    assert {row.method for row in read_rows(Path("gain.csv"))} == {"before", "after", "raw_1nn"}
    assert load_encoder("runs/mine").config.objective.kind == "mine"
    assert len(names["labels"]) == len(names["test"].series)
    assert len(names["scores"]) == len(names["windows"]) - 60
    assert np.load("features.npz")["features"].shape == (40, 6 * 32)  # 40 training cases of 6 channels
    assert load_encoder("encoders/official").config.model.width == 8
    assert sorted(path.name for path in desk.glob("*.svg")) == [
        "attention.svg",
        "embedding.svg",
        "labelled.svg",
        "nme.svg",
        "training.svg",
        "views.svg",
        "why.svg",
    ]
    (desk / "recordings").mkdir()
    for name in ("a", "b"):
        pd.DataFrame({"flow": [1.5, 2, 3], "power": [4, 5, 7]}).to_csv(f"recordings/{name}.csv", index=False)
    for page in ("data.md", "evaluation.md"):  # in the same folder
        run_page(DOCS / page)
    assert [case.shape for case in read_series("recordings.csv").series] == [(2, 3), (2, 3)]
    assert (desk / "results" / "guide" / "report.html").stat().st_size > 10_000


def block_with(text):
    """The block of Python in extend.md that has this text."""
    (found,) = (one for language, one in blocks(DOCS / "extend.md") if language == "python" and text in one)
    return found


@pytest.mark.slow
def test_a_scalar_encoder_from_outside_the_package(desk, monkeypatch):
    monkeypatch.setitem(SCALAR_ENCODERS, "signed_log", None)  # so that it is gone afterwards
    monkeypatch.setattr("nutime_jax.cli.main.main", lambda argv: main([*argv, *QUICK["pretrain"]]))
    text = block_with("SCALAR_ENCODERS[")
    exec(compile(text, "extend.md", "exec"), {"__name__": "extend"})
    assert len([line for line in text.splitlines() if line.strip()]) <= 40
    encoder = load_encoder(desk / "runs" / "signed_log")
    assert encoder.variables["params"]["embedding"]["scalars"].keys() == {"in", "out"}
    assert np.isfinite(encoder.embed(np.random.default_rng(0).normal(size=(2, 64)) * np.array([[1e-30], [1e30]]))).all()
    assert "nme" not in encoder.variables["params"]["embedding"]


@pytest.mark.slow
def test_a_probe_from_outside_the_package(desk, monkeypatch):
    monkeypatch.setitem(PROBES, "centroid", None)  # so that it is gone afterwards
    exec(compile(block_with("PROBES["), "extend.md", "exec"), {})
    rows = read_rows(desk / "results" / "centroid" / "results.csv")
    assert {row.protocol for row in rows} == {"centroid", "ridge"}


@pytest.mark.slow
def test_a_protocol_from_outside_the_package(desk, monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "retrieval", None)  # so that it is gone afterwards
    exec(compile(block_with("PROTOCOLS["), "extend.md", "exec"), {})
    (row,) = read_rows(desk / "results" / "retrieval" / "results.csv")
    assert (row.protocol, row.metric) == ("retrieval", "precision")
    assert 1 / 3 < row.value <= 1  # ArrowHead has three classes


def test_a_file_format_from_outside_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(READERS, ".mat", None)  # so that it is gone afterwards
    exec(compile(block_with("READERS["), "extend.md", "exec"), {})
    X, y = np.arange(40.0).reshape(4, 10), np.array([0, 1, 0, 1])
    for split in ("TRAIN", "TEST"):
        savemat(tmp_path / f"mine_{split}.mat", {"X": X, "y": y})
    (files,) = find_datasets(str(tmp_path))
    assert (files.name, files.test is not None) == ("mine", True)
    cases = files.read("test")
    np.testing.assert_array_equal(np.stack(cases.series)[:, 0], X)
    assert cases.labels.tolist() == ["0", "1", "0", "1"]


@pytest.mark.slow
def test_an_objective_from_outside_the_package(desk, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "vicreg", None)  # so that it is gone afterwards
    monkeypatch.setattr("nutime_jax.cli.main.main", lambda argv: main([*argv, *QUICK["pretrain"]]))
    exec(compile(block_with("OBJECTIVES["), "extend.md", "exec"), {})
    losses = [json.loads(line)["loss"] for line in (desk / "runs" / "vicreg" / "metrics.jsonl").read_text().splitlines()]
    assert all(1 < loss < 60 for loss in losses)  # narrow dimensions cost 50 at most; BYOL's loss is below 4 / 16
    assert np.isfinite(load_encoder(desk / "runs" / "vicreg").embed(np.ones((1, 64)))).all()


@pytest.mark.parametrize("command", [line for page in PAGES for line in shell_commands(page) if line.startswith("nutime ")])
def test_commands_parse(command):
    args = _parse(shlex.split(command)[1:])
    if hasattr(args, "config") and args.command != "convert":
        load_config(args.config, args.overrides, schema=args.schema)


def inline_codes(page):
    return re.findall(r"`([^`\n]+)`", page.read_text())


def known_fields():
    return {name for schema in make_configuration.SCHEMAS.values() for name in options(schema)}


def known_flags():
    parsers = [make_api.parser_of(name) for name in COMMANDS]
    return {flag for parser in parsers for one in (parser, *make_api.actions_of(parser).values()) for flag in one._option_string_actions}


@pytest.mark.parametrize("page", [ROOT / "launch" / "README.md", *WRITTEN], ids=lambda page: str(page.relative_to(ROOT)))
def test_fields_exist(page):
    fields = known_fields()
    sections = {name.partition(".")[0] for name in fields if "." in name}
    names = {code.partition("=")[0] for code in inline_codes(page) if re.fullmatch(r"[a-z]+\.[a-z_0-9]+(=.*)?", code)}
    names = {name for name in names if name.partition(".")[0] in sections and name != "model.py"}
    modules = {name for name in names if (ROOT / "nutime_jax" / name.replace(".", "/")).with_suffix(".py").exists()}
    assert not names - fields - modules


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_flags_exist(page):
    flags = {flag for code in inline_codes(page) for flag in re.findall(r"(?<![\w-])--[a-z_]+(?![\w.-])", code)}
    assert not flags - known_flags() - {"--dist", "--help"}


def test_modules_that_pages_run_exist():
    for page in PAGES:
        for module in re.findall(r"python -m ([a-z_.]+)", page.read_text()):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert not path or (page.parent / path).exists(), target
        if anchor:
            linked = (page.parent / path).read_text() if path else text
            headings = re.findall(r"^#+ (.*)$", linked, re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings], target


def test_paths_of_the_architecture_exist():
    for path in inline_codes(DOCS / "architecture.md"):
        if re.fullmatch(r"[a-z_/]+(/|\.py|\.j2)", path):
            assert (ROOT / "nutime_jax" / path).exists() or (ROOT / path).exists(), path


def test_the_index_names_every_page():
    listed = set(re.findall(r"\]\(([a-z]+\.md)\)", (DOCS / "README.md").read_text()))
    assert listed == {page.name for page in PAGES} - {"README.md"}


def test_pictures_are_small():
    assert all(path.stat().st_size < 60_000 for path in (DOCS / "figures").iterdir())


def test_the_api_page_is_up_to_date():
    assert (DOCS / "api.md").read_text() == make_api.make_page(), "docstrings or flags have changed: run python -m docs.make_api"


def test_the_configuration_page_is_up_to_date():
    page = (DOCS / "configuration.md").read_text()
    assert page == make_configuration.make_page(), "the schema has changed: run python -m docs.make_configuration"


def test_the_table_of_settings_is_up_to_date_and_every_default_is_the_encoders():
    shown = (DOCS / "evaluation.md").read_text().partition(make_settings.BEGIN)[2].partition(make_settings.END)[0]
    assert shown == make_settings.make_table(), "flags or parameters have changed: run python -m docs.make_settings"


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text())


def test_what_the_page_says_in_words_is_so(results):
    from aeon.classification.convolution_based import MiniRocketClassifier

    sets = results["sets"].values()
    mean = {method: sum(found[method]["accuracy"] for found in sets) / len(sets) for method in ("probe", "minirocket")}
    assert mean["minirocket"] > mean["probe"], "the page advises a ROCKET where accuracy is all"
    assert not any(MiniRocketClassifier.get_class_tag(f"capability:{name}") for name in ("unequal_length", "missing_values"))


def test_what_to_expect_shows_the_figures(results):
    shown = split_page(DOCS / "expect.md", maker="benchmarks.expect")[1]
    assert shown.strip() == render(results), "run python -m benchmarks.expect"
