import csv
import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import load_config, update
from nutime_jax.core.scalars import embed_scalar
from nutime_jax.data.datasets import BUNDLED, DatasetFiles, find_all_datasets, find_datasets
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.evaluation.results import read_rows
from nutime_jax.loading import untrained_encoder
from studies import scales, scores, variants
from studies.charts import Panel, plot_panels
from studies.command import CONFIGS
from studies.domains import DomainsConfig, datasets_by_domain, exclude_domain, read_dataset_types, study_domains
from studies.objectives import study_objectives
from studies.report import SeedStats, StudyReport, StudyTable, format_report, format_value, seed_stats, write_report
from studies.scales import (
    ScalarEmbedding,
    ScalesConfig,
    distinguished_range,
    measure_decoding,
    measure_distances,
    rescale_dataset,
    study_scales,
)
from studies.variants import VariantsConfig, make_variant, make_variants, plan_runs, select_variants, train_runs, untrained_names
from studies.windows import WindowsConfig, describe_dataset, group_datasets, periodicity, study_windows

SCHEMAS = {"scales": ScalesConfig, "windows": WindowsConfig, "domains": DomainsConfig, "objectives": VariantsConfig}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small sets under names that the archive knows: an image, two sensors, and one that it does not know."""
    folder = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for name, length in (("Fish", 40), ("Trace", 60), ("Plane", 20), ("Mine", 30)):
        labels = np.arange(12) % 2
        arrays = {f"X_{split}": rng.normal(size=(12, length)) + labels[:, None] for split in ("train", "test")}
        np.savez(folder / f"{name}.npz", **arrays, y_train=labels, y_test=labels)
    return folder


@pytest.fixture
def training(monkeypatch):
    """Instead of pretraining: an encoder of the seed, which a study finds as it would find one that is trained. What was asked for."""
    asked = []

    def pretrain(config, workdir):
        asked.append(config)
        untrained_encoder(config).save(workdir)

    monkeypatch.setattr(variants, "pretrain", pretrain)
    monkeypatch.setattr(variants, "is_finished", lambda config, workdir: workdir.exists())
    return asked


def configured(study, folder, *overrides):
    """A study of smoke-size runs on the sets of a folder."""
    small = ["base=smoke", "seeds=0,1", "pretrain.length=64", f"pretrain.data.sources=all={folder}", f"probe.sources={folder}"]
    small += ["probe.pooling=cls+mean", "pretrain.optim.warmup_steps=2", "pretrain.steps=8", "pretrain.batch_size=16"]
    if study == "scales":
        small += ["draws=2", "per_decade=1", "decoded_draws=1", "train_scalars=64", "test_scalars=48", "powers=0,3"]
    return load_config(str(CONFIGS / f"{study}.py"), [*small, *overrides], schema=SCHEMAS[study])


def base():
    return load_config("smoke", ["model.depth=1"])


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Variants


def test_a_variant_is_the_base_with_what_is_shared_and_what_is_its_own(folder):
    config = configured("objectives", folder, "selected=simclr,no-scalars")
    simclr, bare = make_variants(config, base())
    assert (simclr.name, bare.name) == ("simclr", "no-scalars")
    assert (simclr.config.objective.kind, simclr.config.model.window_stats) == ("simclr", "window")
    assert (bare.config.objective.kind, bare.config.model.window_stats) == ("byol", "none")  # of smoke
    assert simclr.config.length == bare.config.length == 64
    assert simclr.config.augment == base().augment
    assert base().steps == load_config("smoke").steps  # the base is not touched


def test_runs_share_a_corpus_and_have_workdirs_of_their_own(folder, tmp_path):
    made = make_variants(configured("objectives", folder, "selected=byol,simclr"), base())
    runs = plan_runs(made, (3, 5), tmp_path)
    assert [(run.variant, run.seed) for run in runs] == [("byol", 3), ("byol", 5), ("simclr", 3), ("simclr", 5)]
    assert [run.config.seed for run in runs] == [3, 5, 3, 5]
    assert len({run.workdir for run in runs}) == 4
    assert {run.config.data.dir for run in runs} == {str(tmp_path / "corpora")}
    named = make_variants(configured("objectives", folder, "selected=byol", "pretrain.data.dir=elsewhere"), base())
    assert plan_runs(named, (0,), tmp_path)[0].config.data.dir == "elsewhere"


@pytest.mark.slow
def test_a_run_that_diverges_is_listed_and_the_others_go_on(folder, tmp_path, monkeypatch, training):
    plain = variants.pretrain

    def pretrain(config, workdir):
        if config.objective.kind == "byol" and config.seed == 1:
            raise DivergenceError("the projections have collapsed")
        plain(config, workdir)

    monkeypatch.setattr(variants, "pretrain", pretrain)
    found = study_objectives(configured("objectives", folder, "selected=byol,simclr"), base(), tmp_path)
    counts = {line[0]: [cell.count for cell in line[1:]] for line in found.tables["table"].lines}
    assert counts == {"byol": [1, 2, 1], "simclr": [2, 2, 2]}
    assert found.notes[-1] == "variant byol, seed 1, diverged: the projections have collapsed"
    # An encoder that learnt nothing is its twin: of seeds that are paired wrongly it would not be.
    assert all(line[3].mean == 0 for line in found.tables["table"].lines)
    monkeypatch.setattr(variants, "pretrain", lambda *_: (_ for _ in ()).throw(DivergenceError("not finite")))
    with pytest.raises(InputError, match="every run diverged; first message: variant simclr, seed 7"):
        train_runs(plan_runs(make_variants(configured("objectives", folder, "selected=simclr"), base()), (7,), tmp_path))


def test_variants_of_one_model_share_a_baseline(folder, tmp_path):
    named = {}
    for study, only in (("objectives", "byol,simclr"), ("objectives", "byol,simclr,no-scalars"), ("windows", "8,16")):
        runs = plan_runs(make_variants(configured(study, folder, f"selected={only}"), base()), (0, 1), tmp_path)
        named[only] = untrained_names(runs)
    assert named["byol,simclr"] == {"byol": "untrained", "simclr": "untrained"}
    assert named["byol,simclr,no-scalars"] == {"byol": "untrained byol", "simclr": "untrained byol", "no-scalars": "untrained no-scalars"}
    assert named["8,16"] == {"8": "untrained 8", "16": "untrained 16"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stesp": 3}, r"no field 'variants\.x\.stesp', did you mean 'variants\.x\.steps'\?"),
        ({"data": {"source": ("a",)}}, r"no field 'variants\.x\.data\.source', did you mean 'variants\.x\.data\.sources'\?"),
        ({"steps": "many"}, r"variants\.x\.steps is 'many'; choose an integer of 1 or more"),
        ({"model": {"windows_of": 3}}, r"no field 'variants\.x\.model\.windows_of'"),
    ],
)
def test_a_change_that_the_base_has_no_field_for_is_rejected(changes, message):
    with pytest.raises(InputError, match=message):
        VariantsConfig(variants={"x": changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"kind": "dino"}}, "variant x: objective.kind is 'dino'; choose one of"),
        ({"model": {"window_size": 7}}, "variant x: length 64 is not divisible by model.window_size 7"),
    ],
)
def test_what_no_run_could_do_is_said_before_the_first_begins(changes, message, folder):
    config = update(configured("objectives", folder), {"variants": {"byol": {}, "x": changes}})
    with pytest.raises(InputError, match=message):
        make_variants(config, base())


@pytest.mark.parametrize(
    ("known", "only", "message"),
    [
        ({}, (), "variants is empty; add one"),
        ({"a": 1, "b": 2}, ("c",), "selected names 'c'; variants has a, b"),
        ({"a/b": 1}, (), "'a/b', which cannot name a folder"),
    ],
)
def test_choices_that_are_rejected(known, only, message):
    with pytest.raises(InputError, match=message):
        select_variants(known, only, section="variants")


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_that_are_rejected(seeds, tmp_path):
    with pytest.raises(InputError, match="name one or more, each once"):
        plan_runs([], seeds, tmp_path)


@pytest.mark.parametrize("study", [name for name in SCHEMAS if name != "domains"])
def test_shipped_variants_are_such_that_a_run_can_do(study):
    config = load_config(str(CONFIGS / f"{study}.py"), schema=SCHEMAS[study])
    made = make_variants(config, load_config(config.base))
    assert [one.name for one in made] == list(config.variants)
    assert len({(one.config.model, one.config.objective) for one in made}) == len(made)


# Scores


@pytest.mark.slow
def test_a_study_that_was_stopped_goes_on(folder, tmp_path, monkeypatch, training):
    config = configured("objectives", folder, "selected=byol,no-scalars")
    first = study_objectives(config, base(), tmp_path)
    assert len(training) == 4
    assert not (tmp_path / "sweep" / "features").exists()
    rows = read_rows(tmp_path / "results.csv")
    assert {row.method for row in rows} == {"byol", "no-scalars", "untrained byol", "untrained no-scalars"}
    (tmp_path / "results.csv").unlink()
    monkeypatch.setattr("nutime_jax.evaluation.protocols.registry.layer_features", lambda *_, **options: pytest.fail("computed again"))
    again = study_objectives(config, base(), tmp_path)
    assert len(training) == 4
    assert again.tables == first.tables
    assert read_rows(tmp_path / "results.csv") == rows  # timings too


@pytest.mark.slow
def test_a_set_that_a_run_has_no_number_of_is_left_out_of_all_means(folder, tmp_path, training):
    np.savez(tmp_path / "one.npz", X_train=np.ones((4, 9)), y_train=np.ones(4), X_test=np.ones((4, 9)), y_test=np.ones(4))
    config = configured("objectives", folder, "selected=byol", f"probe.sources={folder / 'Fish.npz'},{tmp_path / 'one.npz'}")
    found = study_objectives(config, base(), tmp_path / "out")
    assert "one is skipped: " in found.notes[0]
    assert [line[0] for line in found.tables["datasets"].lines] == ["Fish"]
    config = configured("objectives", folder, "selected=byol", f"probe.sources={tmp_path / 'one.npz'}")
    with pytest.raises(InputError, match="no dataset has the results of all runs; first reason: one is skipped"):
        study_objectives(config, base(), tmp_path / "out")


def test_a_probe_that_is_none_is_rejected_before_anything_is_trained(folder, tmp_path, training):
    for study, begin in (
        ("objectives", study_objectives),
        ("windows", study_windows),
        ("domains", study_domains),
        ("scales", study_scales),
    ):
        with pytest.raises(InputError, match=r"probe\.protocol is 'svm'; choose one of kernel"):
            begin(configured(study, folder, "probe.protocol=svm"), base(), tmp_path)
    assert training == []


# Windows


@pytest.mark.slow
def test_windows_are_compared_on_groups_of_sets(folder, tmp_path, training):
    config = configured("windows", folder, "selected=8,16", "groups=2", "seeds=0")
    found = study_windows(config, base(), tmp_path)
    table = found.tables["table"]
    assert table.columns == ("by", "range", "datasets", "8", "16")
    assert table.lines[0][:3] == ("all", "", 4)
    lengths = [line[1:3] for line in table.lines if line[0] == "length"]
    assert lengths == [("20–30", 2), ("40–60", 2)]
    both = [line[3].mean for line in table.lines if line[0] == "length"]
    assert np.isclose(np.mean(both), table.lines[0][3].mean)  # the groups are as large as each other
    assert found.tables["datasets"].columns[:4] == ("dataset", "length", "periodicity", "period")
    with pytest.raises(InputError, match="groups is 0; choose an integer of 1 or more"):
        study_windows(configured("windows", folder, "groups=0"), base(), tmp_path)


@pytest.mark.parametrize("period", [5, 16, 50])
def test_a_wave_has_its_period(period):
    time = np.arange(400)
    wave = 1e4 + 3e-3 * time + np.sin(2 * np.pi * time / period)
    strength, found = periodicity(wave)
    assert strength > 0.95
    # Whole periods repeat as well as one: the period is one of them.
    periods = found / 100 * len(time) / period
    assert abs(periods - round(periods)) < 0.05
    noisy, _ = periodicity(wave + np.random.default_rng(0).normal(size=400))
    assert 0.1 < noisy < strength


def test_what_has_no_period_has_none():
    rng = np.random.default_rng(0)
    assert periodicity(np.full(50, 7.0)) == (0.0, 100.0)
    assert periodicity(1e6 + 0.1 * np.arange(50)) == (0.0, 100.0)  # a straight line, and rounding
    assert periodicity(np.ones(3)) == (0.0, 100.0)
    assert periodicity(rng.normal(size=2000))[0] < 0.2


def test_a_set_is_described_by_its_training_series(folder):
    (files,) = find_datasets(str(folder / "Fish.npz"))
    assert describe_dataset(files)["length"] == 40
    assert describe_dataset(find_datasets("GunPoint")[0])["period"] <= 100


def test_sets_of_one_value_stay_together():
    assert group_datasets({"a": 3, "b": 1, "c": 2, "d": 4}, 2) == {"1–2": ("b", "c"), "3–4": ("a", "d")}
    assert group_datasets({"a": 80, "b": 80, "c": 80, "d": 500}, 2) == {"80": ("a", "b", "c"), "500": ("d",)}
    assert group_datasets({"a": 1}, 3) == {"1": ("a",)}


# Domains


def test_the_types_are_those_of_the_archives():
    types = read_dataset_types()
    assert len(types) == 128 + 10
    known = {"Fish": "Image", "ECG200": "ECG", "PLAID": "Device", "GestureMidAirD1": "Trajectory", "PickupGestureWiimoteZ": "Sensor"}
    assert {name: types[name] for name in known} == known
    assert set(BUNDLED) <= types.keys()


@pytest.mark.slow
def test_a_domain_is_left_out_of_the_corpus_and_asked_about(folder, tmp_path, training):
    found = study_domains(configured("domains", folder, "selected=sensor,ecg,image", "seeds=0"), base(), tmp_path)
    assert [config.name for config in training] == ["everything-0", "without-sensor-0", "without-image-0"]  # there is no ECG
    assert [tuple(config.data.exclude) for config in training] == [(), ("Plane", "Trace"), ("Fish",)]
    table = found.tables["table"]
    assert [line[:2] for line in table.lines] == [("sensor", 2), ("image", 1)]
    assert all(line[5].mean == line[6].mean == 0 for line in table.lines)  # nobody has learnt anything
    assert {line[0]: line[1] for line in found.tables["datasets"].lines} == {
        "Fish": "image",
        "Mine": "",
        "Plane": "sensor",
        "Trace": "sensor",
    }


def test_a_source_that_is_left_out_whole_is_no_source(folder):
    config = configured("domains", folder, f"pretrain.data.sources={folder / 'Fish.npz'},{folder / 'Trace.npz'}")
    whole = make_variant("everything", base(), config.pretrain)
    without = exclude_domain(whole, "image", ("Image",))
    assert (without.config.data.sources, without.config.data.exclude) == ((str(folder / "Trace.npz"),), ("Fish",))
    assert exclude_domain(whole, "ecg", ("ECG",)) is None
    assert exclude_domain(whole, "all", ("Image", "Sensor")) is None  # nothing would be left


def test_domains_that_are_rejected(folder, tmp_path, training):
    sets = find_all_datasets([str(folder)])
    with pytest.raises(InputError, match="domain a has type 'Sensors'; the archives have AS, Device"):
        datasets_by_domain({"a": ("Sensors",)}, sets)
    with pytest.raises(InputError, match="type Image is in the domains a and b; remove it from one of them"):
        datasets_by_domain({"a": ("Image",), "b": ("Sensor", "Image")}, sets)
    with pytest.raises(InputError, match=r"no domain has datasets both in the corpus and in probe\.sources"):
        study_domains(configured("domains", folder, "selected=ecg"), base(), tmp_path)
    assert training == []


# Scales


class Known:
    """An embedding of two numbers that one can work out: the sign, and a magnitude that nothing tells below 1e-2."""

    def init(self, seed):
        return seed

    def embed(self, variables, x):
        power = np.log10(np.abs(x))
        return np.stack([np.where(power < -2, 0, np.sign(x)), np.maximum(power, -2)], 1)


def test_distances_and_blind_spots_of_an_embedding_that_is_known():
    magnitudes = 10.0 ** np.arange(-4, 5)
    found = measure_distances(Known(), magnitudes, draws=3)
    np.testing.assert_allclose(found.sign, [0, 0, 2, 2, 2, 2, 2, 2, 2])
    np.testing.assert_allclose(found.double, [0, 0, *[math.log10(2)] * 7], atol=1e-12)
    norm = np.sqrt(1 + 9)  # at 1e3
    np.testing.assert_allclose(found.sign_ratio[7], 2 / norm)
    assert distinguished_range(found.sign_ratio, magnitudes, threshold=0.01) == "1.0e-02 to 1.0e+04"
    assert distinguished_range(np.zeros(9), magnitudes, threshold=0.01) == "none"
    assert distinguished_range(np.ones(9), magnitudes, threshold=0.01) == "all"


def test_decoders_find_what_is_there_and_no_more():
    found = measure_decoding(Known(), (-4, 4), train=800, test=400, noise=0.0, draws=2)
    assert found.keys() == {"ridge", "knn"}
    for one in found.values():
        assert (one.sign[2:] == 0).all()
        assert (one.sign[:2] > 20).all()
        assert (one.magnitude[3:] < 0.1).all() or one is found["ridge"]
        assert one.magnitude[:2].mean() > 0.4
    assert measure_decoding(Known(), (-4, 4), train=800, test=400, noise=0.5, draws=2)["knn"].magnitude[3:].min() > 0.1


def test_the_embedding_of_a_scalar_is_that_of_the_encoder():
    model = base().model
    embedding = ScalarEmbedding(model)
    variables = embedding.init(1)
    x = np.array([-3e7, -1.0, 1e-8, 0.3, 5.0] * 200)
    weights = variables["params"]
    parts = (x, weights["weight"], weights["bias"], [10.0**k for k in range(-4, 5)])
    expected = embed_scalar(*(jnp.asarray(one, jnp.float32) for one in parts))
    np.testing.assert_allclose(embedding.embed(variables, x), expected, atol=1e-5)
    assert not np.allclose(embedding.embed(embedding.init(2), x), expected, atol=1e-2)
    with pytest.raises(InputError, match="the model embeds no scalars"):
        ScalarEmbedding(replace(model, window_stats="none"))


def test_scales_are_measured_without_training(folder, tmp_path, training):
    config = configured("scales", folder, "seeds=", "selected=nme-9,nme-1")
    found = study_scales(config, base(), tmp_path)
    assert training == []
    assert list(found.tables) == ["table", "distances", "decoding"]
    assert [line[0] for line in found.tables["table"].lines] == ["nme-9", "nme-1"]
    distances = {(line[0], line[1]): line[2:] for line in found.tables["distances"].lines}
    # Nine scales see the sign of 1e-2 as well as that of 1; one does not.
    assert distances["nme-9", 1e-2][0] > 0.5 * distances["nme-9", 1.0][0]
    assert distances["nme-1", 1e-2][0] < 0.1 * distances["nme-1", 1.0][0]
    assert len(found.tables["decoding"].lines) == 2 * 2 * 16


@pytest.mark.slow
def test_scales_are_trained_and_probed_in_other_units(folder, tmp_path, training):
    found = study_scales(configured("scales", folder, "selected=nme-9", "seeds=0"), base(), tmp_path)
    assert len(training) == 1
    units = found.tables["units"]
    assert units.columns == ("variant", "k = 0", "k = 3")
    assert "4 datasets" in units.title
    assert [line[0] for line in found.tables["datasets"].lines][:2] == ["Fish x 10^0", "Fish x 10^3"]


def test_a_set_in_another_unit(folder):
    (files,) = find_datasets(str(folder / "Fish.npz"))
    for split in ("train", "test"):
        ours, theirs = (one.read(split) for one in (files, rescale_dataset(files, -3)))
        np.testing.assert_allclose(np.concatenate(theirs.series), 1e-3 * np.concatenate(ours.series), rtol=1e-6)
        assert (ours.labels == theirs.labels).all()
    assert isinstance(rescale_dataset(files, 2), DatasetFiles)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("draws=0", "draws is 0; choose an integer of 1 or more"),
        ("train_scalars=3", "train_scalars is 3; choose an integer of 20 or more"),
        ("log10_range=3,3", "log10_range is .3, 3.; choose a lowest power below the highest"),
        ("noise=2", "noise is 2.0; choose a number from 0 to 1"),
        ("distance_threshold=-1", "distance_threshold is -1.0; choose a number from 0 to 1"),
        ("powers=1,2", "powers is .1, 2.; choose powers with 0"),
        ("powers=0,0", "powers is .0, 0.; choose integers from -30 to 30, separated by commas, each once"),
    ],
)
def test_scales_that_are_rejected(override, message, folder, tmp_path, training):
    with pytest.raises(InputError, match=message):
        study_scales(configured("scales", folder, override), base(), tmp_path)
    assert training == []


def test_a_variant_without_scalars_is_rejected_by_name(folder, tmp_path):
    config = configured("scales", folder, "seeds=")
    config = update(config, {"variants": {"bare": {"model": {"window_stats": "none"}}}})
    with pytest.raises(InputError, match="variant bare: the model embeds no scalars"):
        study_scales(config, base(), tmp_path)


# Findings


@pytest.fixture
def findings():
    table = StudyTable("Title", ("name", "n", "accuracy"), (("a|b", 3, SeedStats(71.234, 1.5, 3)), ("c", 12, SeedStats(5.0, math.nan, 1))))
    panel = Panel("t", "x", "y", ["a", "b"], {"m": [SeedStats(1.0, 0.5, 2), 2.0]})
    return StudyReport(
        {"table": table, "datasets": replace(table, title="Datasets")}, lambda: plot_panels([panel]), notes=("d is left out",)
    )


def test_findings_are_written_and_said(findings, tmp_path):
    written = write_report(findings, tmp_path / "new")
    assert [path.name for path in written] == ["table.md", "table.csv", "datasets.csv", "figure.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in written)
    assert lines(written[1]) == [
        {"name": "a|b", "n": "3", "accuracy": "71.234", "accuracy std": "1.5", "accuracy seeds": "3"},
        {"name": "c", "n": "12", "accuracy": "5.0", "accuracy std": "", "accuracy seeds": "1"},
    ]
    page = written[0].read_text()
    assert "| a\\|b | 3 | 71.2 ± 1.5 |\n| c | 12 | 5.0 |" in page
    assert page.endswith("- d is left out\n")
    assert "Datasets" not in page
    said = format_report(findings).splitlines()
    assert said[0] == "Title"
    assert said[4:6] == ["a|b    3  71.2 ± 1.5", "c     12         5.0"]
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_report(findings, tmp_path / "new")] == before


def test_what_cannot_be_written_is_said(findings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written .*; choose another --out"):
        write_report(findings, tmp_path / "file")


def test_without_matplotlib_there_are_tables(findings, tmp_path, monkeypatch):
    monkeypatch.setattr("studies.report.can_plot", lambda: False)
    assert [path.name for path in write_report(findings, tmp_path)] == ["table.md", "table.csv", "datasets.csv"]


def test_spreads_in_words():
    assert seed_stats([1.0, 3.0]) == SeedStats(2.0, math.sqrt(2), 2)
    assert format_value(seed_stats([1.0])) == "1.0"
    assert format_value(seed_stats([])) == "–"
    assert [format_value(value) for value in (0.0123, 0.0, 12.34, -0.5, 3, "x", math.nan)] == [
        "0.012",
        "0.0",
        "12.3",
        "-0.5",
        "3",
        "x",
        "–",
    ]


def test_gains_are_between_runs_of_one_seed():
    values = {"a": {"s": np.array([10.0, 30.0])}, "b": {"s": np.array([1.0, 2.0, 3.0])}}
    found = scores.Scores(values, {"a": (0, 2), "b": (0, 1, 2)}, {"a": "b"}, ())
    np.testing.assert_array_equal(found.gain("a", "b"), [9, 27])


def test_panels_are_drawn(tmp_path):
    curves = Panel("c", "x", "y", [1.0, 10.0, 100.0], {"a": [1.0, np.nan, 3.0], "b": [SeedStats(1.0, 0.1, 2)] * 3}, "xy", (1e-2, None))
    names = Panel("n", "", "y", ["one", "two"], {"b": [1.0, 2.0], "$c": [3.0, 4.0]})
    figure = plot_panels([curves, names, curves])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["c", "n", "c"]
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", r"\$c"]
    assert scales.PENALTIES.min() > 0
