import dataclasses
import json

import jax
import numpy as np
import pytest

from nutime_jax.bundle import load_bundle, save_bundle
from nutime_jax.config import TuningSettings
from nutime_jax.data.datasets import Cases
from nutime_jax.errors import DivergenceError, InputError
from nutime_jax.evaluation.features import Task
from nutime_jax.evaluation.protocols.fewshot import draw_tasks
from nutime_jax.evaluation.protocols.finetune import fine_tune_task, fit_average, tuned_fewshot_metrics
from nutime_jax.evaluation.protocols.probes import fit_probe
from nutime_jax.finetuning import packed
from nutime_jax.finetuning.channels import fit_channels
from nutime_jax.finetuning.ensemble import layer_factor, learning_rate_schedule, make_optimizer, run_epoch
from nutime_jax.finetuning.loop import fine_tune, stratified_validation_split
from nutime_jax.finetuning.saved import load_classifier
from tests.encoders import smoke_encoder

# The paper's features; tests/e2e/test_settings.py has the default, those of the encoder.
PAPER = {"pooling": "cls", "num_window_offsets": 1}
SIZES = {"head_norm": "none", "epochs": 4, "batch_size": 8, "learning_rates": (1e-3, 1e-2), "patience": 0}
QUICK = TuningSettings(min_validation_cases=1, **SIZES, **PAPER)


@pytest.fixture(scope="module")
def encoder():
    """The smoke encoder, one block deep: what is compiled here is compiled quickly."""
    return smoke_encoder()


def toy(seed=0, *, classes=2, each=8, channels=1, lengths=(40, 90)):
    """Sines of a frequency and a level a class, in noise, of unequal lengths."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"class {chr(97 + i)}" for i in range(classes)], each)
    series = []
    for label in labels:
        time = np.arange(rng.integers(*lengths))[None] + rng.uniform(0, 9, (channels, 1))
        number = ord(label[-1]) - 97
        wave = np.sin(time / 3**number) + number
        series.append((wave + 0.1 * rng.normal(size=wave.shape)).astype(np.float32))
    return Cases(series, labels)


def change(settings=QUICK, **fields):
    return dataclasses.replace(settings, **fields)


def arrays(classifier):
    return {**classifier.members, **classifier.shared}


def assert_same(one, two, *, atol=0.0):
    ours, theirs = arrays(one), arrays(two)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def fitted(encoder):
    return fine_tune(encoder, toy(), settings=change(epochs=15))


def test_a_separable_set_is_learned(fitted):
    test = toy(1)
    assert fitted.accuracy(test.series, test.labels) == 1
    assert fitted.training.accuracy == 1
    assert fitted.classes_.tolist() == ["class a", "class b"]
    assert fitted.predict(test.series)[0] == "class a"
    probabilities = fitted.predict_proba(test.series)
    assert probabilities.shape == (16, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


def test_fine_tuning_is_deterministic_and_leaves_its_input_alone(encoder):
    train = toy()
    before = [case.copy() for case in train.series]
    weights = jax.tree.map(np.array, encoder.variables)
    assert_same(*(fine_tune(encoder, train, settings=QUICK) for _ in range(2)))
    jax.tree.map(np.testing.assert_array_equal, train.series, before)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, encoder.variables), weights)


def test_64_bits_change_nothing(encoder, fitted, x64):
    again = fine_tune(encoder, toy(), settings=change(epochs=15))
    assert_same(again, fitted)
    with jax.enable_x64(False):
        expected = fitted.predict_proba(toy().series)
    np.testing.assert_array_equal(again.predict_proba(toy().series), expected)


def test_the_head_strategy_leaves_the_encoder_to_the_bit(encoder):
    classifier = fine_tune(encoder, toy(), settings=change(strategy="head", head_norm="batch", epochs=40))
    names = {"params/head/kernel", "params/head/bias", "params/head_norm/scale", "params/head_norm/bias"}
    assert classifier.members.keys() == names | {"batch_stats/head_norm/mean", "batch_stats/head_norm/var"}
    assert np.abs(classifier.members["batch_stats/head_norm/mean"]).max() > 0
    block = encoder.variables["params"]["block_0"]["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(classifier.shared["params/encoder/block_0/attention/qkv/kernel"], block)
    test = toy(1)
    assert classifier.accuracy(test.series, test.labels) >= 0.75


def test_layer_decay_scales_the_step_of_a_block(encoder):
    """Everything but the decay alike, a first step is a step of Adam times its factor."""
    one_step = change(epochs=1, learning_rates=(1e-3, 1.000001e-3))  # so alike that it does not matter which is kept
    plain, decayed = (fine_tune(encoder, toy(each=4), settings=change(one_step, layer_decay=decay)) for decay in (1.0, 0.5))
    start = encoder.variables["params"]
    cases = {"norm/bias": 1, "block_0/mlp/in/kernel": 0.5, "embedding/shape/kernel": 0.25, "cls": 0.25}
    for name, factor in cases.items():
        leaf = start
        for part in name.split("/"):
            leaf = leaf[part]
        full, less = (one.members[f"params/encoder/{name}"][0] - np.asarray(leaf) for one in (plain, decayed))
        assert np.abs(full).max() > 1e-5
        # Weights of order one are rounded to 1e-7; a step is about 1e-4.
        np.testing.assert_allclose(less, factor * full, rtol=0, atol=3e-7, err_msg=name)


def test_the_factors_of_layers_go_down_from_the_head():
    names = ["params/head/kernel", "params/encoder/norm/scale", "params/encoder/block_5/x", "params/encoder/block_0/x"]
    names += ["params/encoder/embedding/shape/kernel", "params/encoder/cls", "params/encoder/embedding/fusion/kernel"]
    factors = [layer_factor(name, depth=6, decay=0.5) for name in names]
    assert factors == [1, 1, 0.5, 0.5**6, 0.5**7, 0.5**7, 1]


def test_the_learning_rate_rises_and_falls():
    counts = 100 * np.array([0.0, 0.05, 0.1, 0.55, 1.0]) - 0.5
    np.testing.assert_allclose(learning_rate_schedule(1.0, warmup_fraction=0.1, steps=100)(counts), [0, 0.5, 1, 0.5, 0], atol=1e-6)
    without = learning_rate_schedule(1.0, warmup_fraction=0.0, steps=100)
    np.testing.assert_allclose(without(np.array([-0.5, 99.5])), [1, 0], atol=1e-6)


def test_the_optimiser_is_adamw_with_a_factor_per_array():
    """Twenty steps against the published update rule, by hand in float64."""
    rng = np.random.default_rng(0)
    factors, peak, decay, steps = {"a": 1.0, "b": 0.5}, 1e-2, 0.1, 20
    weights = {name: rng.normal(size=(3, 4)).astype(np.float32) for name in factors}
    optimizer = make_optimizer(learning_rate_schedule(peak, warmup_fraction=0.2, steps=steps), weight_decay=decay, factors=factors)
    state, ours = optimizer.init(weights), weights
    expected = {name: leaf.astype(np.float64) for name, leaf in weights.items()}
    first, second = ({name: np.zeros((3, 4)) for name in factors} for _ in range(2))
    for step in range(steps):
        grads = {name: rng.normal(size=(3, 4)).astype(np.float32) for name in factors}
        updates, state = optimizer.update(grads, state, ours)
        ours = {name: ours[name] + updates[name] for name in factors}
        progress = (step + 0.5) / steps
        rate = peak * (progress / 0.2 if progress < 0.2 else 0.5 * (1 + np.cos(np.pi * (progress - 0.2) / 0.8)))
        for name, factor in factors.items():
            first[name] = 0.9 * first[name] + 0.1 * grads[name]
            second[name] = 0.999 * second[name] + 0.001 * grads[name].astype(np.float64) ** 2
            adam = first[name] / (1 - 0.9 ** (step + 1)) / (np.sqrt(second[name] / (1 - 0.999 ** (step + 1))) + 1e-8)
            expected[name] = expected[name] - rate * factor * (adam + decay * expected[name])
    for name in factors:
        np.testing.assert_allclose(ours[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_members_side_by_side_are_members_alone(encoder):
    together = fine_tune(encoder, toy(), settings=change(ensemble_size=2), seed=3)
    alone = [fine_tune(encoder, toy(), settings=QUICK, seed=seed) for seed in (3, 4)]
    assert together.training.seeds == (3, 4)
    assert together.training.best_epochs == tuple(one.training.best_epochs[0] for one in alone)
    assert together.training.learning_rates == tuple(one.training.learning_rates[0] for one in alone)
    for name, leaf in together.members.items():
        # Batched products round otherwise; Adam makes of that at most a share of a step, and eight steps are taken.
        np.testing.assert_allclose(leaf, np.concatenate([one.members[name] for one in alone]), rtol=0, atol=2e-4, err_msg=name)
    test = toy(1)
    mean = np.mean([one.predict_proba(test.series) for one in alone], axis=0)
    np.testing.assert_allclose(together.predict_proba(test.series), mean, rtol=0, atol=1e-3)


def test_the_best_epoch_is_kept_and_patience_ends_training(encoder):
    reports = []
    settings = change(epochs=30, patience=3)
    classifier = fine_tune(encoder, toy(), settings=settings, progress=lambda epoch, report: reports.append(report))
    scores = np.array([[one.score.accuracy[0], -one.score.loss[0]] for one in reports])  # epochs, (accuracy, -loss), learning_rates
    last = []
    for rate in (0, 1):
        best, stale = (-1.0, -np.inf), 0
        for epoch, score in enumerate(map(tuple, scores[:, :, rate]), 1):
            if stale < 3:
                best, place, stale = (score, epoch, 0) if score > best else (best, place, stale + 1)
        assert reports[-1].best_epoch[0, rate] == place
        last.append((best, -rate, place))
    assert classifier.training.best_epochs == (max(last)[2],)
    assert classifier.training.epochs == len(reports)
    assert classifier.training.accuracies[0] == pytest.approx(max(last)[0][0])


@pytest.mark.slow
def test_a_refit_trains_on_every_case_as_long_as_was_best_on_average(encoder):
    train, settings = toy(each=5), change(ensemble_size=2, epochs=6, refit=True)
    before, after = (fine_tune(encoder, train, settings=change(settings, refit=refit)) for refit in (False, True))
    assert (before.training.train_cases, before.training.validation_cases) == (8, 2)
    assert (after.training.train_cases, after.training.validation_cases) == (10, 2)
    (rate,), (epochs,) = set(after.training.learning_rates), set(after.training.best_epochs)
    assert rate in settings.learning_rates
    assert 1 <= epochs <= 6
    assert not np.array_equal(after.members["params/head/kernel"], before.members["params/head/kernel"])


@pytest.mark.slow
def test_a_refit_of_all_epochs_is_training_on_all_cases(encoder):
    train, settings = toy(each=5), change(ensemble_size=2, epochs=1, learning_rates=(1e-3,))
    refitted = fine_tune(encoder, train, settings=change(settings, refit=True))
    assert_same(refitted, fine_tune(encoder, train, settings=settings, only=[np.arange(10)] * 2))


@pytest.mark.parametrize(("cases", "epochs", "patience"), [(4, 50, 25), (8, 50, 25), (20, 17, 9), (80, 10, 5)])
def test_small_sets_are_gone_through_more_often(encoder, cases, epochs, patience):
    settings = change(epochs=10, patience=5, min_updates=50)
    long = settings.with_min_updates(cases)
    assert (long.epochs, long.patience) == (epochs, patience)
    assert change(settings, min_updates=0).with_min_updates(cases) == change(settings, min_updates=0)


@pytest.mark.slow
def test_least_updates_lengthen_training(encoder):
    trained = fine_tune(encoder, toy(each=5), settings=change(epochs=1, learning_rates=(1e-3,), min_updates=3))
    assert trained.training.epochs == 3


@pytest.mark.slow
def test_a_larger_packing_changes_nothing(encoder, monkeypatch):
    plain = fine_tune(encoder, toy(), settings=QUICK)
    for name in ("LEAST_CASES", "LEAST_POINTS", "LEAST_CLASSES"):
        monkeypatch.setattr(packed, name, 2 * getattr(packed, name))
    monkeypatch.setattr("nutime_jax.finetuning.classifier.LEAST_CLASSES", packed.LEAST_CLASSES)
    larger = fine_tune(encoder, toy(), settings=QUICK)
    assert larger.network.classes == 2 * 8
    assert larger.training.best_epochs == plain.training.best_epochs
    # The products with the head are of another width, and may be rounded otherwise.
    assert_same(plain, larger, atol=2e-4)


def test_test_cases_choose_nothing(encoder):
    test = toy(1)
    wrong = Cases(test.series, np.random.default_rng(0).permutation(test.labels))
    honest, other = (fine_tune_task(encoder, Task("toy", toy(), cases), settings=QUICK) for cases in (test, wrong))
    assert_same(honest.classifier, other.classifier)
    assert [row.metric for row in honest.rows] == ["validation_accuracy", "accuracy"]
    assert {row.selection for row in honest.rows} == {"train"}
    assert honest.rows[0].value == other.rows[0].value
    changed = (
        "head_norm=none pooling=cls epochs=4 batch_size=8 learning_rates=0.001,0.01 min_validation_cases=1 patience=0 num_window_offsets=1"
    )
    assert honest.rows[1].setting == f"strategy=full {changed}"


@pytest.fixture(scope="module")
def averaged(encoder):
    return fit_average(encoder, toy(), settings=QUICK, probe="ridge", layer=0)


def test_an_average_has_the_mean_of_the_probabilities(encoder, averaged, tmp_path):
    test = toy(1)
    tuned, probe = fine_tune(encoder, toy(), settings=QUICK), fit_probe(encoder, toy(), probe="ridge", layer=0)
    expected = (tuned.predict_proba(test.series) + probe.predict_proba(test.series)) / 2
    np.testing.assert_array_equal(averaged.predict_proba(test.series), expected)
    loaded = load_classifier(averaged.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict_proba(test.series), expected)
    assert loaded.training == averaged.training


def test_an_average_of_other_classes_is_rejected(averaged, tmp_path):
    probe = dataclasses.replace(averaged.probe, classes_=np.array(["class a", "class z"]))
    dataclasses.replace(averaged, probe=probe).save(tmp_path / "model")
    with pytest.raises(InputError, match=r"is corrupt: its config\.json does not describe a classifier"):
        load_classifier(tmp_path / "model")


def test_an_averaged_task_scores_the_average(encoder):
    test = toy(1)
    rows = fine_tune_task(encoder, Task("toy", toy(), test), settings=QUICK, average=True).rows
    assert [(row.metric, row.protocol) for row in rows] == [("validation_accuracy", "average"), ("accuracy", "average")]
    assert rows[1].value == fit_average(encoder, toy(), settings=QUICK).accuracy(test.series, test.labels)


def test_the_published_selection_is_marked(encoder):
    settings, test = change(selection="test"), toy(1)
    tuned = fine_tune_task(encoder, Task("toy", toy(), test), settings=settings)
    assert [(row.metric, row.selection) for row in tuned.rows] == [("accuracy", "test")]
    assert "selection=test" in tuned.rows[0].setting
    training = tuned.classifier.training
    assert (training.train_cases, training.validation_cases, training.selection) == (16, 16, "test")
    assert training.accuracy == pytest.approx(tuned.rows[0].value)  # what was chosen is what is scored


def test_a_test_class_that_training_has_not_is_wrong_and_no_more(encoder):
    test = toy(1)
    labels = test.labels.copy().astype("<U20")
    labels[:4] = "never seen"
    settings = change(selection="test")
    training = fine_tune(encoder, toy(), settings=settings, test=Cases(test.series, labels)).training
    assert training.accuracy <= 0.75
    assert np.isfinite(training.losses[0])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_validation_takes_of_every_class_and_leaves_some(share):
    labels = np.repeat([0, 1, 2, 3], [1, 2, 7, 40])
    train, valid = stratified_validation_split(labels, fraction=share, seed=0)
    assert sorted([*train, *valid]) == list(range(50))
    assert set(labels[train]) == {0, 1, 2, 3}
    assert set(labels[valid]) == {1, 2, 3}
    other = stratified_validation_split(labels, fraction=share, seed=1)[1]
    assert len(other) == len(valid)
    assert other.tolist() != valid.tolist()


@pytest.mark.parametrize(("each", "least"), [(1, 1), (8, 5)])
def test_few_cases_all_train_to_the_end(encoder, each, least):
    classifier = fine_tune(encoder, toy(each=each), settings=change(patience=1, min_validation_cases=least))
    assert (classifier.training.train_cases, classifier.training.validation_cases) == (2 * each, 0)
    assert classifier.training.best_epochs == (4,)
    assert classifier.training.learning_rates == (1e-2,)
    assert np.isnan(classifier.training.accuracy)
    assert set(classifier.predict(toy(1).series)) <= {"class a", "class b"}


def test_a_class_of_one_case_trains(encoder):
    train = toy(classes=3)
    keep = list(range(17))
    classifier = fine_tune(encoder, Cases([train.series[i] for i in keep], train.labels[keep]), settings=QUICK)
    assert classifier.classes_.tolist() == ["class a", "class b", "class c"]


def test_short_series_and_a_small_signal_on_a_large_offset(encoder):
    rng = np.random.default_rng(0)
    short = [rng.normal(size=(1, n)).astype(np.float32) for n in (1, 2, 3, 7)]
    level = [np.float64(101_325) + 0.01 * rng.normal(size=(1, 50)) for _ in range(4)]
    labels = np.array(["short"] * 4 + ["level"] * 4)
    classifier = fine_tune(encoder, Cases(short + level, labels), settings=change(epochs=10))
    assert classifier.accuracy(short + level, labels) == 1
    assert np.isfinite(classifier.predict_proba([*short, np.ones(3), np.full(9, 1e30)])).all()


@pytest.mark.parametrize("channels", ["fusion", pytest.param("independent", marks=pytest.mark.slow)])
def test_two_channels(encoder, channels):
    classifier = fine_tune(encoder, toy(channels=2), settings=change(channels=channels, epochs=20))
    assert ("params/encoder/embedding/fusion/kernel" in classifier.members) == (channels == "fusion")
    test = toy(1, channels=2)
    assert classifier.accuracy(test.series, test.labels) >= 0.9
    swapped = classifier.predict_proba([case[::-1] for case in test.series])
    same = np.abs(swapped - classifier.predict_proba(test.series)).max() < 1e-5
    assert same == (channels == "independent")
    with pytest.raises(InputError, match="case 0 has 1 channels; the classifier was fitted on 2"):
        classifier.predict(toy().series)


@pytest.mark.parametrize("reduction", ["variance", "pca"])
def test_many_channels_become_few(encoder, tmp_path, reduction):
    loud = np.array([0.1, 5.0, 1.0, 7.0], np.float32)[:, None]
    train, test = (Cases([loud * case for case in toy(seed, channels=4).series], toy(seed).labels) for seed in (0, 1))
    differences = {"channels": "concat", "differences": True} if reduction == "pca" else {}
    settings = change(max_channels=2, reduction=reduction, epochs=10, **differences)
    classifier = fine_tune(encoder, train, settings=settings)
    assert classifier.channels.channels == (4 if differences else 2)
    features = classifier.members["params/head/kernel"].shape[1]
    assert features == encoder.config.model.width * (4 if differences else 1)
    assert classifier.channels.kept == ((1, 3) if reduction == "variance" else ())
    classifier.save(tmp_path / "model")
    expected = classifier.predict_proba(test.series)
    np.testing.assert_array_equal(load_classifier(tmp_path / "model").predict_proba(test.series), expected)


def test_first_differences_are_further_channels():
    cases = [np.array([[1.0, 4, 2], [0, 0, 5]], np.float32), np.array([[3.0], [7]], np.float32)]
    fitted = fit_channels(cases, limit=2, reduction="variance", differences=True)
    np.testing.assert_array_equal(fitted.apply(cases[0], name="a case")[2:], [[3, 3, -2], [0, 0, 5]])
    np.testing.assert_array_equal(fitted.apply(cases[1], name="a case"), [[3], [7], [0], [0]])
    assert np.isfinite(fitted.apply(np.array([[3e38, -3e38], [0, 1]], np.float32), name="a case")).all()
    with pytest.raises(InputError, match="differences is true and channels is 'fusion'; choose concat or independent"):
        change(differences=True)


def test_components_are_those_of_the_standardised_channels():
    rng = np.random.default_rng(0)
    cases = [rng.normal(size=(5, 5)) @ rng.normal(size=(5, n)) + 3 for n in (60, 80)]
    fitted = fit_channels(cases, limit=2, reduction="pca")
    points = np.concatenate([fitted.apply(case, name="a case") for case in cases], axis=1)
    every = np.concatenate(cases, axis=1)
    correlation = np.corrcoef(every)
    np.testing.assert_allclose(points.mean(1), 0, atol=1e-5)  # float32 after the mixing
    np.testing.assert_allclose(np.cov(points, ddof=0), np.diag(np.linalg.eigvalsh(correlation)[::-1][:2]), atol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "norm", "members"),
    [
        ("full", "none", 1),
        ("head", "batch", 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("full", "none", 2), ("head", "layer", 1))),
    ],
)
def test_a_saved_classifier_is_the_same_to_the_bit(encoder, tmp_path, strategy, norm, members):
    classifier = fine_tune(encoder, toy(), settings=change(strategy=strategy, head_norm=norm, ensemble_size=members))
    for _ in range(2):  # the second replaces the first
        folder = classifier.save(tmp_path / "model")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["model"]
    loaded = load_classifier(folder)
    assert_same(classifier, loaded)
    test = toy(1)
    np.testing.assert_array_equal(loaded.predict_proba(test.series), classifier.predict_proba(test.series))
    np.testing.assert_array_equal(loaded.classes_, classifier.classes_)
    assert (loaded.settings, loaded.training, loaded.channels) == (classifier.settings, classifier.training, classifier.channels)


def test_shifts_average_what_is_said_of_stretches_that_begin_later(fitted):
    size = fitted.config.length
    series = np.random.default_rng(0).normal(size=(3, size + 12)).cumsum(1).astype(np.float32)
    shifted = dataclasses.replace(fitted, settings=change(fitted.settings, num_window_offsets=4))
    stretches = [fitted.predict_proba(series[:, start : start + size]) for start in (0, 4, 8, 12)]
    assert np.ptp(stretches, axis=0).max() > 1e-4
    np.testing.assert_allclose(shifted.predict_proba(series), np.mean(stretches, axis=0), rtol=0, atol=1e-6)


def test_a_window_has_no_more_shifts_than_points(encoder):
    with pytest.raises(InputError, match="num_window_offsets is 17; choose an integer from 1 to the window stride, 16"):
        fine_tune(encoder, toy(), settings=change(num_window_offsets=17))


def test_long_splits_are_predicted_in_packs(fitted, monkeypatch):
    series = toy(1, each=20).series
    expected = fitted.predict_proba(series)
    monkeypatch.setattr("nutime_jax.finetuning.classifier.LEAST_CASES", 7)
    monkeypatch.setattr("nutime_jax.finetuning.classifier.LEAST_POINTS", 300)
    np.testing.assert_allclose(fitted.predict_proba(series), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(series[:1]), expected[:1], rtol=0, atol=1e-6)


def test_a_damaged_or_foreign_folder_is_rejected(fitted, tmp_path):
    folder = fitted.save(tmp_path / "model")
    weights, config = (folder / "weights.safetensors").read_bytes(), (folder / "config.json").read_text()
    flipped = bytearray(weights)
    flipped[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(flipped)
    with pytest.raises(InputError, match=r"is corrupt: the checksum of weights\.safetensors does not match"):
        load_classifier(folder)
    (folder / "weights.safetensors").write_bytes(weights)
    for text, message in [
        (config.replace("class a", "class z"), "is corrupt: the checksum of config.json"),
        (config[:100], "is corrupt: the checksum of config.json"),
        (json.dumps({"name": "another"}), "is not a bundle of kind 'classifier'"),
    ]:
        (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            load_classifier(folder)
    with pytest.raises(InputError, match="is not a bundle of kind 'classifier'"):
        load_classifier(tmp_path / "nowhere")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not a bundle of kind 'classifier'"):
        fitted.save(folder)


@pytest.mark.parametrize("change", ["bias", "name", "classes", "same classes", "channels", "length"])
def test_a_sealed_folder_of_other_shapes_is_rejected(fitted, tmp_path, change):
    about, arrays, _ = load_bundle(fitted.save(tmp_path / "model"), kind="classifier", schema=1, writer="the test")
    about = {name: about[name] for name in ("encoder", "settings", "classes", "channels", "training")}
    if change == "bias":
        arrays["members/params/head/bias"] = arrays["members/params/head/bias"][..., :1]
    elif change == "name":
        arrays["members/other"] = arrays.pop("members/params/head/bias")
    elif change == "classes":
        about["classes"] = [*about["classes"], "one more"]
    elif change == "same classes":
        about["classes"] = about["classes"][:1] * len(about["classes"])
    elif change == "channels":
        about["channels"] = {**about["channels"], "kept": [7]}
    else:
        about["encoder"] = {**about["encoder"], "length": -1}
    save_bundle(tmp_path / "other", about, arrays, kind="classifier", schema=1)
    with pytest.raises(InputError, match=r"other is corrupt: its config\.json does not describe a classifier|length"):
        load_classifier(tmp_path / "other")


def test_sets_share_their_programs(encoder):
    sets = [toy(), toy(each=13, classes=3, lengths=(10, 300)), toy(each=3, classes=5, lengths=(64, 65))]
    fine_tune(encoder, sets[0], settings=QUICK).predict(sets[0].series)
    before, compiled = run_epoch._cache_size(), []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else 0)
    try:
        for one in sets:
            fine_tune(encoder, one, settings=change(epochs=2, learning_rates=(2e-3, 1e-2), layer_decay=0.7)).predict(one.series)
    finally:
        jax.monitoring.clear_event_listeners()
    assert run_epoch._cache_size() == before
    assert compiled == []


@pytest.mark.parametrize(
    ("train", "fields", "test", "message"),
    [
        (Cases(toy().series, None), {}, None, "The train split has no labels"),
        (Cases(toy().series, np.array(["a"] * 16)), {}, None, "Every training case has class 'a'"),
        (toy(), {"selection": "test"}, None, "selection 'test' validates on the test split"),
        (toy(), {}, toy(1), "selection 'train' uses no test cases"),
        (toy(), {"selection": "test"}, Cases(toy(1).series, None), "The test split has no labels"),
        (toy(), {"selection": "test"}, toy(1, channels=2), "case 0 of the test split has 2 channels"),
    ],
)
def test_what_cannot_be_fine_tuned_is_rejected(encoder, train, fields, test, message):
    with pytest.raises(InputError, match=message):
        fine_tune(encoder, train, settings=change(**fields), test=test)


def test_divergence_is_said(encoder):
    for train in (toy(), toy(each=1)):
        with pytest.raises(DivergenceError, match="choose lower learning rates"):
            fine_tune(encoder, train, settings=change(learning_rates=(2e38, 3e38)))
    classifier = fine_tune(encoder, toy(), settings=change(learning_rates=(3e38, 1e-3)))
    assert classifier.training.learning_rates == (1e-3,)


def test_labels_that_are_numbers_become_text(encoder):
    train = toy()
    classifier = fine_tune(encoder, Cases(train.series, np.repeat([10, 2], 8)), settings=QUICK)
    assert classifier.classes_.tolist() == ["10", "2"]
    assert classifier.accuracy(train.series, np.repeat([10, 2], 8)) > 0.5


def test_no_series_are_rejected(fitted):
    with pytest.raises(InputError, match="X has no series"):
        fitted.predict([])


@pytest.mark.slow
def test_few_shot_tasks_know_their_own_cases_alone(encoder):
    train, test = toy(), toy(1)
    options = {"shots": 3, "tasks": 2, "settings": change(epochs=15)}
    metrics = tuned_fewshot_metrics(encoder, Task("toy", train, test), **options)
    assert 0.6 < metrics["accuracy"] <= 1
    known = np.unique(draw_tasks(train.labels, shots=3, tasks=2))
    assert len(known) < len(train.series)
    others = [series if i in known else series[:, ::-1] * 1e3 for i, series in enumerate(train.series)]
    assert tuned_fewshot_metrics(encoder, Task("toy", Cases(others, train.labels), test), **options) == metrics
    with pytest.raises(InputError, match="class 'class a'"):
        tuned_fewshot_metrics(encoder, Task("toy", train, test), shots=9, settings=options["settings"])
