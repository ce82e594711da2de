"""The face: what is loaded, what may be embedded, and what does not change the features of a case."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nutime_jax import bundle, embedding
from nutime_jax.config import load_config, override
from nutime_jax.data.series import split_long_series
from nutime_jax.embedding import resize_series
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.estimators import NuTimeTransformer
from nutime_jax.evaluation.encoders import describe_encoder
from nutime_jax.evaluation.features import encoder_digest
from nutime_jax.loading import WEIGHTS, list_pretrained, load_encoder, untrained_encoder
from nutime_jax.models.network import build_encoder
from nutime_jax.models.stem import STATISTICS
from nutime_jax.objectives import build_network
from tests.encoders import smoke_encoder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 2, 70))


@pytest.fixture(scope="module")
def encoder():
    return smoke_encoder("data.max_length=500")


@pytest.fixture(scope="module")
def features(encoder):
    return encoder.embed(X)


def same(one, two):
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


def test_overlapping_windows_are_shifted_within_their_stride_and_have_tokens_in_order():
    encoder = smoke_encoder("model.stride=4")
    tokens = encoder.embed(X[:, 0], tokens=True)
    assert tokens.shape == (6, 13, 16)
    same(tokens.mean(1), encoder.embed(X[:, 0], pooling="mean"))
    assert encoder.with_options(input_lengths=(68,), num_window_offsets=4).embed(X[:, 0]).shape == (6, 32)
    with pytest.raises(InputError, match="num_window_offsets is 5; choose an integer from 1 to the window stride, 4"):
        encoder.with_options(num_window_offsets=5)
    with pytest.raises(
        InputError, match="length 66 cannot be embedded; choose a length that windows of 16 time points every 4 tile exactly"
    ):
        encoder.with_options(input_lengths=(66,))


def test_tokens_of_windows_of_several_sizes_are_rejected():
    config = load_config("smoke", ["model.depth=1", "model.extra_window_sizes=8,32"])
    with pytest.raises(InputError, match="tokens=True needs a single window size, and the encoder has windows of 16, 8, 32 time points"):
        Encoder(config, {}).embed(X[:, 0], tokens=True)


# ---- Loading


def test_the_untrained_baseline_is_the_encoder_of_the_network_that_is_trained():
    config = load_config("smoke", ["model.depth=1"])
    whole = jax.jit(build_network(build_encoder(config.model), config.objective).init)(
        jax.random.key(config.seed), jnp.zeros((2, 2, 1, config.length))
    )
    twin = untrained_encoder(config).variables
    for name in ("params", "constants"):
        jax.tree.map(np.testing.assert_array_equal, whole[name]["encoder"], twin[name])


def test_a_saved_encoder_is_the_same_to_the_bit_and_tells_nothing_of_where_it_was_made(encoder, features, tmp_path):
    folder = encoder.save(tmp_path / "mine", card="# Mine\n")
    loaded = load_encoder(folder)
    np.testing.assert_array_equal(loaded.embed(X), features)
    assert (folder / "card.md").read_text() == "# Mine\n"
    kept = json.loads((folder / "config.json").read_text())["encoder"]
    assert sorted(kept) == ["data", "evaluation", "length", "matmul_precision", "model", "name", "seed"]
    assert (kept["data"], kept["evaluation"]) == (
        {"max_length": 500},
        {
            "input_lengths": [],
            "length_buckets": [128, 256, 512, 1024],
            "diff_orders": [0],
            "num_window_offsets": 1,
            "pooling": "cls+mean",
            "precision": "highest",
            "normalise": "none",
            "channel_means": [],
            "channel_stds": [],
            "channel_differences": False,
            "fast": ["num_window_offsets=1", "diff_orders=0"],
            "accurate": ["num_window_offsets=2", "diff_orders=0+1"],
        },
    )
    jax.tree.map(np.testing.assert_array_equal, untrained_encoder(loaded.config).variables, encoder.variables)
    assert load_encoder(loaded.save(folder)).config == loaded.config


def test_half_the_bytes_keep_three_digits(encoder, features, tmp_path):
    whole, half = encoder.save(tmp_path / "whole"), encoder.save(tmp_path / "half", float16=True)
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[0] - sizes[1] == pytest.approx(sum(leaf.nbytes for leaf in jax.tree.leaves(encoder.variables["params"])) / 2, rel=0.02)
    loaded = load_encoder(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.variables)} == {np.dtype(np.float32)}
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=2**-11, atol=1e-7), loaded.variables, encoder.variables)
    np.testing.assert_allclose(loaded.embed(X), features, atol=0.02)
    large = dataclasses.replace(encoder, variables=jax.tree.map(lambda leaf: 1e6 * leaf, encoder.variables))
    with pytest.raises(InputError, match="too large for float16; save the encoder without float16"):
        large.save(tmp_path / "large", float16=True)


@pytest.mark.slow
def test_features_of_several_lengths_stand_side_by_side(encoder, tmp_path):
    both = encoder.with_options(input_lengths=(64, 32))
    one, other = (encoder.with_options(input_lengths=(length,)).embed(X, channels="none") for length in (64, 32))
    same(both.embed(X, channels="none"), np.concatenate([one, other], axis=-1))
    same(encoder.embed(X), encoder.with_options(input_lengths=(64,)).embed(X))
    same(np.stack(list(both.embed(iter(X), batch_size=5))), both.embed(X))
    same(
        both.embed_layers(list(X[0])),
        np.concatenate([encoder.with_options(input_lengths=(length,)).embed_layers(list(X[0])) for length in (64, 32)], axis=-1),
    )
    same(both.embed(X, tokens=True), encoder.embed(X, tokens=True))
    loaded = load_encoder(both.save(tmp_path / "both"))
    assert loaded.input_lengths == (64, 32)
    assert repr(loaded).endswith("length 64+32>")
    same(loaded.embed(X), both.embed(X))


def test_an_encoder_knows_what_is_read_of_it(encoder, tmp_path):
    whole = smoke_encoder(
        "data.max_length=500", "evaluation.pooling=all_layers", "evaluation.input_lengths=32", "evaluation.num_window_offsets=2"
    )
    other = encoder.with_options(input_lengths=(32,), num_window_offsets=2)
    same(whole.embed(X), other.embed(X, pooling="all_layers"))
    same(whole.embed(X, layer=1), other.embed(X, layer=1))
    same(whole.embed(X, pooling="cls"), other.embed(X, pooling="cls"))
    same(load_encoder(whole.save(tmp_path / "whole")).embed(X), whole.embed(X))
    same(NuTimeTransformer(whole).fit_transform(X), whole.embed(X, channels="concat"))


def test_features_are_averaged_over_shifts(encoder):
    channel = X[0, 0]
    longer = resize_series([channel], 64 + 10)  # the last of three window offsets is at point 10 of a window of 16
    apart = [encoder.embed(longer[:, start : start + 64]) for start in (0, 5, 10)]
    same(encoder.with_options(num_window_offsets=3).embed(channel[None]), np.mean(apart, axis=0))
    same(encoder.with_options(num_window_offsets=1).embed(X), encoder.embed(X))
    same(
        encoder.with_options(input_lengths=(32,), num_window_offsets=2).with_options(input_lengths=(64,)).embed(X),
        encoder.with_options(input_lengths=(64,), num_window_offsets=2).embed(X),
    )
    same(encoder.with_options(num_window_offsets=3).embed(X, tokens=True), encoder.embed(X, tokens=True))


def test_differences_are_read_beside_the_series(encoder, tmp_path):
    both = encoder.with_options(input_lengths=(64, 32), num_window_offsets=2, diff_orders=(0, 1))
    apart = [
        encoder.with_options(input_lengths=(64, 32), num_window_offsets=2).embed(one, channels="none")
        for one in (X, np.diff(np.float32(X)))
    ]
    same(both.embed(X, channels="none"), np.concatenate(apart, axis=-1))
    of_difference = encoder.with_options(input_lengths=(64, 32), num_window_offsets=2, diff_orders=(1,)).embed_layers(list(X[0]))
    same(both.embed_layers(list(X[0]))[:, -of_difference.shape[1] :], of_difference)
    same(both.embed(X, tokens=True), encoder.embed(X, tokens=True))
    same(both.with_options(diff_orders=(0,)).embed(X), encoder.with_options(input_lengths=(64, 32), num_window_offsets=2).embed(X))
    halves = np.split(both.embed(X[:, 0]), 2, axis=-1)
    same(both.with_options(diff_orders=(1, 0)).embed(X[:, 0]), np.concatenate(halves[::-1], axis=-1))
    same(load_encoder(both.save(tmp_path / "both")).embed(X), both.embed(X))


def test_differences_of_any_series_are_finite(encoder):
    changes = encoder.with_options(diff_orders=(1,))
    for one in (np.float32([3]), np.full(2, 7.0), np.float32([3e38, -3e38, 3e38, -3e38]), 1e5 + np.sin(np.arange(90)) / 1e4):
        assert np.isfinite(changes.embed([one])).all()
    same(changes.embed([np.array([3.0])]), encoder.embed([np.zeros(1)]))
    # A level that float32 cannot hold beside the signal is no part of a difference.
    wave = np.sin(np.arange(200) / 9)
    np.testing.assert_allclose(changes.embed([1e8 + wave]), changes.embed([wave]), atol=1e-4)


@pytest.mark.parametrize(
    ("diff_orders", "message"),
    [
        ((-1,), r"diff_orders has -1; choose 0 \(the series\), 1 \(its first difference\), or both"),
        ((0, 2), "diff_orders has 2"),
        ((1, 1), "diff_orders are 1, 1; name each once"),
    ],
)
def test_diff_orders_that_cannot_be_are_rejected(encoder, diff_orders, message):
    with pytest.raises(InputError, match=message):
        encoder.with_options(diff_orders=diff_orders)


def test_a_series_is_resized_to_its_bucket(encoder):
    config = override(encoder.config, "evaluation.length_buckets=32,64", "evaluation.input_lengths=0", "evaluation.pooling=all_layers+stem")
    by_bucket = Encoder(config, encoder.variables)
    assert [by_bucket.lengths_of(native) for native in (1, 32, 33, 64, 500)] == [(32,), (32,), (64,), (64,), (64,)]
    series = [np.sin(np.arange(native) / 3) for native in (64, 20, 300, 32, 40)]
    apart = [by_bucket.with_options(input_lengths=(length,)).embed([x])[0] for x, length in zip(series, (64, 32, 64, 32, 64), strict=True)]
    same(by_bucket.embed(series), np.stack(apart))
    same(by_bucket.embed(series, batch_size=2), np.stack(apart))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_differences_of_channels_are_further_channels(encoder, channels):
    config = override(encoder.config, "evaluation.channel_differences=true")
    case = np.random.default_rng(0).normal(size=(channels, 64))
    pairs = {1: [], 2: [(0, 1)], 3: [(0, 1), (1, 2), (2, 0)]}[channels]
    expanded = np.concatenate([case, *(case[i : i + 1] - case[j : j + 1] for i, j in pairs)])
    with_differences = Encoder(config, encoder.variables)
    same(with_differences.embed(case[None]), encoder.embed(expanded[None]))
    for combination in ("mean", "none"):
        same(with_differences.embed(case[None], channels=combination), encoder.embed(case[None], channels=combination))


def test_fine_tuning_resizes_to_the_bucket_of_the_longest_series(encoder):
    by_bucket = Encoder(override(encoder.config, "evaluation.length_buckets=32,64", "evaluation.input_lengths=0"), encoder.variables)
    assert [by_bucket.for_training(native).config.length for native in (8, 33, 100)] == [32, 64, 64]
    assert encoder.for_training(8) is encoder


def test_a_named_setting_changes_the_fields_that_it_lists(encoder, tmp_path):
    config = override(
        encoder.config, "evaluation.fast=input_lengths=0,pooling=mean", "evaluation.accurate=num_window_offsets=2,diff_orders=0+1"
    )
    path = Encoder(config, encoder.variables).save(tmp_path / "one")
    fast, accurate = (load_encoder(path, setting=setting) for setting in ("fast", "accurate"))
    assert (fast.input_lengths, fast.pooling, fast.num_window_offsets) == ((0,), "mean", 1)
    assert (accurate.input_lengths, accurate.pooling, accurate.num_window_offsets) == ((encoder.config.length,), "cls+mean", 2)
    assert accurate.diff_orders == (0, 1)
    with pytest.raises(InputError, match="setting 'fas' is unknown; choose fast or accurate"):
        load_encoder(path, setting="fas")
    with pytest.raises(InputError, match=r"has no setting 'fast'; set evaluation\.fast, or remove the setting"):
        Encoder(override(config, "evaluation.fast="), encoder.variables).with_setting("fast")


def test_the_precision_reaches_the_program_and_the_cache_key(encoder, monkeypatch):
    encode, used = embedding._encode, []
    monkeypatch.setattr(embedding, "_encode", lambda *a, **k: used.append(jax.config.jax_default_matmul_precision) or encode(*a, **k))
    coarse = encoder.with_options(precision="default")
    same(coarse.embed(X[:1]), encoder.embed(X[:1]))  # CPUs compute float32 at any
    assert used == ["default", "highest"]
    assert encoder_digest(coarse) != encoder_digest(encoder)
    fine, described = (describe_encoder("nutime-small", either) for either in (encoder, coarse))
    assert described == fine.replace(" weights", " precision=default weights")


@pytest.mark.parametrize("num_window_offsets", [0, 17, -1, 2.0, "2", True])
def test_window_offsets_that_cannot_be_are_rejected(encoder, num_window_offsets):
    with pytest.raises(InputError, match=r"num_window_offsets is .*; choose an integer from 1 to the window stride, 16"):
        encoder.with_options(num_window_offsets=num_window_offsets)


@pytest.mark.parametrize(
    ("input_lengths", "message"),
    [
        ((30,), "length 30 cannot be embedded; choose a multiple of window_size 16, up to"),
        ((64, -16), "length -16 cannot be embedded"),
        ((10**9,), "length 1000000000 cannot be embedded"),
        ((64, 64), "input_lengths are 64, 64; name each once"),
    ],
)
def test_lengths_that_cannot_be_are_rejected(encoder, input_lengths, message):
    with pytest.raises(InputError, match=message):
        encoder.with_options(input_lengths=input_lengths)


@pytest.mark.parametrize("name", ["nutime-small", pytest.param("nutime-base", marks=pytest.mark.slow)])
def test_shipped_encoders_are_sound(name):
    encoder = load_encoder(name)
    assert encoder.config.name == name
    assert (WEIGHTS / name / "card.md").read_text().startswith(f"# {name}")
    assert sum(path.stat().st_size for path in (WEIGHTS / name).iterdir()) < 15 << 20
    found = encoder.embed(X[:2, 0])
    model, views = encoder.config.model, len(encoder.diff_orders) * len(encoder.input_lengths)
    stem = {"all_layers": 0, "all_layers+stem": len(model.stem_dilations) * STATISTICS * model.dense_width}[encoder.pooling]
    assert found.shape == (2, views * (2 * model.depth + 1) * model.width + stem)
    for setting in ("fast", "accurate"):
        assert np.isfinite(load_encoder(name, setting=setting).embed(X[:2, 0])).all()
    assert np.isfinite(found).all()


def test_every_shipped_encoder_is_tested():
    assert list_pretrained() == ["nutime-base", "nutime-small"]


def reseal(folder, weights=None, **changes):
    about = json.loads((folder / "config.json").read_text())
    arrays = bundle.load_bundle(folder, kind="encoder", schema=1, writer="").arrays
    about["encoder"] |= changes
    shutil.rmtree(folder)
    bundle.save_bundle(folder, {"encoder": about["encoder"]}, arrays if weights is None else weights(arrays), kind="encoder", schema=1)


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({"model": {"width": 10**9}}, None),
        ({"model": {"max_tokens": 10**12, "width": 16}}, None),
        ({"model": {"depth": 10**9}}, None),
        ({"model": {"num_heads": "eight"}}, None),
        ({"model": {"import": "os"}}, None),
        ({"model": 7}, None),
        ({"length": "512"}, None),
        ({"length": 0}, None),
        ({"evaluation": {"input_lengths": [64, 0], "length_buckets": [40]}}, None),
        ({"evaluation": {"input_lengths": [65]}}, None),
        ({"evaluation": {"pooling": "max"}}, None),
        ({"evaluation": {"num_window_offsets": 17}}, None),
        ({"evaluation": {"diff_orders": [2]}}, None),
        ({"data": {"max_length": -1}}, None),
        ({}, lambda arrays: {}),
        ({}, lambda arrays: {**arrays, "../../etc/passwd": np.ones(2)}),
        ({}, lambda arrays: {**arrays, "params/norm/scale/more": np.ones(2)}),
        ({}, lambda arrays: {**arrays, "params/norm/scale": np.ones(3, np.float32)}),
        ({}, lambda arrays: {**arrays, "params/norm/scale": np.ones(16, np.int32)}),
    ],
)
def test_weights_that_do_not_fit_are_rejected(encoder, tmp_path, changes, weights):
    folder = encoder.save(tmp_path / "one")
    reseal(folder, weights, **changes)
    with pytest.raises(InputError, match="is corrupt: the weights do not match"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nutime-smal", r"encoder 'nutime-smal' not found \(did you mean 'nutime-small'\?\); pass a pretrained name \(nutime-base, "),
        ("large", r"encoder 'large' not found; pass a pretrained name \(nutime-base, nutime-small\)"),
        ("", "holds no checkpoint"),
        (".", "holds no checkpoint"),
        ("small/../../../secret", "encoder .* not found; pass a pretrained name"),
        ("../weights/none", "encoder .* not found; pass a pretrained name"),
        ("/nowhere/at/all", "encoder .* not found; pass a pretrained name"),
        ("a\0b", "not found|is not a valid path"),
        ("x" * 5000, "is not a valid path|not found"),
        (None, "the encoder is None; pass a name or a path"),
        (3, "pass a name or a path"),
        (["nutime-small"], "pass a name or a path"),
        (b"nutime-small", "pass a name or a path"),
        (Path(__file__), "holds no checkpoint"),
    ],
)
def test_what_cannot_be_loaded_is_rejected(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load_encoder(name)


# ---- What may be embedded


def wide(values):
    return pd.DataFrame(values, columns=[f"t{i}" for i in range(values.shape[1])])


def long(values):
    cases, channels, time = values.shape
    columns = {f"channel_{c}": values[:, c].ravel() for c in range(channels)}
    return pd.DataFrame({"id": np.repeat(np.arange(cases), time), "time": np.tile(np.arange(time), cases), **columns})


@pytest.mark.parametrize(
    "given_as",
    [
        list,
        tuple,
        lambda x: x.tolist(),
        jnp.asarray,
        lambda x: [pd.DataFrame(one).to_numpy() for one in x],
        lambda x: np.ma.masked_invalid(x),
        lambda x: long(x),
        lambda x: long(x).sample(frac=1, random_state=0).sort_values("id", kind="stable"),
        lambda x: long(x).set_index(["id", "time"]),
        lambda x: long(x).assign(label=1, note="text").convert_dtypes(),
        lambda x: pd.DataFrame({"a": [pd.Series(one[0]) for one in x], "b": [one[1].tolist() for one in x]}),
    ],
    ids=range(11),
)
def test_several_channels_in_any_form(encoder, features, given_as):
    same(encoder.embed(given_as(X)), features)


@pytest.mark.parametrize(
    "given_as",
    [
        lambda x: x[:, None],
        lambda x: [pd.Series(one) for one in x],
        lambda x: [pd.Series(one, dtype="Float64") for one in x],
        lambda x: pd.Series(list(x)),
        wide,
        lambda x: wide(x).assign(label="a", id=[f"s{i}" for i in range(len(x))]),
        lambda x: wide(x).convert_dtypes(),
        lambda x: wide(np.pad(x, ((0, 0), (0, 9)), constant_values=np.nan)),
        lambda x: np.array([*x, np.zeros(3)], dtype=object)[:-1],
    ],
    ids=range(9),
)
def test_one_channel_in_any_form(encoder, given_as):
    same(encoder.embed(given_as(X[:, 0])), encoder.embed(X[:, 0]))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float16, np.float32, np.longdouble, "Int64", "boolean"])
def test_numbers_of_any_kind(encoder, dtype):
    values = np.round(3 * X[:, 0])
    values = values > 0 if dtype in (bool, "boolean") else np.abs(values)
    converted = pd.DataFrame(values).astype(dtype) if isinstance(dtype, str) else values.astype(dtype)
    same(encoder.embed(converted), encoder.embed(values.astype(np.float64)))


def test_missing_values_of_any_spelling(encoder):
    values = X[:, 0].copy()
    values[:, 3:5] = np.nan
    masked = np.ma.masked_array(np.nan_to_num(values, nan=-9e9), np.isnan(values))
    expected = encoder.embed(values)
    same(encoder.embed(masked), expected)
    same(encoder.embed(wide(values).convert_dtypes()), expected)
    both = np.stack([values, np.full_like(values, np.nan)], axis=1)
    same(encoder.embed(both, channels="none")[:, 1], encoder.embed(np.zeros_like(values)))


def test_iterators_give_rows_as_cases_are_drawn(encoder, features):
    drawn = 0

    def cases():
        nonlocal drawn
        while True:
            yield X[drawn % 6]
            drawn += 1

    rows = encoder.embed(cases(), batch_size=8)
    assert drawn == 0
    for number in range(60):
        same(next(rows), features[number % 6])
        assert drawn <= number + 3 * 8 / 2
    assert list(encoder.embed(iter([]))) == []
    same(list(encoder.embed(map(np.asarray, X.tolist()))), features)


def test_an_iterator_names_the_case_that_is_wrong(encoder):
    rows = encoder.embed(iter([X[0], X[1][:1]]))
    with pytest.raises(InputError, match="case 1 has 1 channels, case 0 has 2"):
        list(rows)
    with pytest.raises(InputError, match="case 1 is None"):
        list(encoder.embed(iter([X[0], None])))


def test_tokens_are_those_of_windows_in_order(encoder):
    long = RNG.normal(size=(3, 2, 1200))  # three pieces each
    windows = encoder.config.length // encoder.config.model.window_size
    tokens = encoder.embed(long, tokens=True)
    assert tokens.shape == (3, 3 * windows, 2 * 16)
    same(tokens.mean(1), encoder.embed(long, pooling="mean"))
    apart = encoder.embed(long, tokens=True, channels="none", layer=1)
    assert apart.shape == (3, 2, 3 * windows, 16)
    pieces = split_long_series(long[1, 1].astype(np.float32), 500)
    same(apart[1, 1].reshape(3, windows, 16), encoder.embed(pieces, tokens=True, layer=1))
    same(encoder.embed(long, tokens=True, channels="concat", layer=1)[..., 16:], apart[:, 1])
    unequal = [long[0], long[0, :, :400]]
    with pytest.raises(InputError, match=r"same number of segments \(found 1 and 3; data.max_length is 500\)"):
        encoder.embed(unequal, tokens=True)
    assert [len(row) for row in encoder.embed(iter(unequal), tokens=True)] == [3 * windows, windows]


def test_other_processes_devices_are_left_alone(encoder, features, monkeypatch):
    """In a job of several processes `jax.devices()` names devices that this one cannot reach."""
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("asked for the devices of all processes"))
    same(encoder.embed(X), features)


def test_the_number_of_devices_changes_nothing(encoder, features, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    alone = dataclasses.replace(encoder)  # the first has its weights on all devices
    same(alone.embed(X, batch_size=5), features)
    assert alone._device_weights.get()[0].size == 1


# ---- What changes nothing

LENGTHS = [1, 2, 3, 15, 16, 17, 63, 64, 65, 511, 512, 1000, 4097, 20_000]
KINDS = {
    "noise": lambda rng, n: rng.normal(size=n),
    "walk": lambda rng, n: np.cumsum(rng.normal(size=n)),
    "sine": lambda rng, n: np.sin(np.arange(n) / rng.uniform(1, 99)),
    "constant": lambda rng, n: np.full(n, rng.normal()),
    "zero": lambda rng, n: np.zeros(n),
    "steps": lambda rng, n: np.round(2 * rng.normal(size=n)),
    "jump": lambda rng, n: (np.arange(n) > n // 2) + 1e-7 * rng.normal(size=n),
    "spike": lambda rng, n: rng.exponential(size=n) ** 9,
    "level": lambda rng, n: 1e5 + 0.01 * rng.normal(size=n),
}
DTYPES = [np.float64, np.float64, np.float32, np.float16, np.int64, np.int8, np.bool]


@st.composite
def inputs(draw):
    """Cases of one to sixty channels, one to 20,000 points, of any dtype, magnitude, layout; a description beside them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels = draw(st.one_of(st.integers(1, 3), st.integers(1, 60)))
    longest = draw(st.sampled_from(LENGTHS))
    count = draw(st.integers(1, max(1, min(6, 100_000 // (channels * longest)))))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    equal, missing, layout = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(["plain", "strided", "readonly"]))
    cases = []
    for _ in range(count):
        n = longest if equal else int(rng.integers(1, longest + 1))
        rows = [KINDS[rng.choice(list(KINDS))](rng, n) for _ in range(channels)]
        case = np.stack(rows) * 10.0 ** rng.uniform(-30, 30, size=(channels, 1) if rng.random() < 0.5 else ())
        if dtype.kind == "f" and missing:
            case[rng.random(case.shape) < 0.2] = np.nan
            case[:, : int(rng.integers(0, n))] = np.nan
            case[0, -1] = 1.0
        if dtype != np.float64:
            case = case / max(np.nanmax(np.abs(case)), 1e-300) * {"f": 3e4, "i": 100, "b": 1}[dtype.kind]
        case = np.clip(case, -1e38, 1e38).astype(dtype)
        if layout == "strided":
            case = np.repeat(case, 2, axis=1)[:, ::2]
        if layout == "readonly":
            case.setflags(write=False)
        cases.append(case)
    if equal and draw(st.booleans()):
        whole = np.stack(cases, axis=-1).transpose(2, 0, 1) if layout == "strided" else np.stack(cases)
        whole.setflags(write=layout != "readonly")
        return whole
    return cases


def check_company(encoder: Encoder, given_cases, *, features: int) -> float:
    """Checks one input; returns the largest difference that company made, as a share of 1e-5 + 1e-6 of the feature.

    Features of released encoders reach 17, where float32 has steps of 2e-6.
    """
    before = [one.copy() for one in given_cases]
    found = encoder.embed(given_cases, channels="none", batch_size=64)
    for one, two in zip(given_cases, before, strict=True):
        np.testing.assert_array_equal(one, two)
    assert found.dtype == np.float32
    assert found.shape == (len(before), len(before[0]), features)
    assert np.isfinite(found).all()
    order = np.random.default_rng(len(before)).permutation(len(before))
    moved = encoder.embed([given_cases[i] for i in order], channels="none", batch_size=16)
    alone = encoder.embed([given_cases[order[0]]], channels="none", batch_size=7)
    pairs = [(moved, found[order]), (alone[0], found[order[0]])]
    share = max((np.abs(one - two) / (1e-5 + 1e-6 * np.abs(two))).max() for one, two in pairs)
    assert share <= 1, share
    return float(share)


@settings(max_examples=12)
@given(inputs())
def test_batch_composition_changes_nothing(encoder, given_cases):
    check_company(encoder, given_cases, features=2 * encoder.config.model.width)


@pytest.mark.thorough
def test_batch_composition_changes_nothing_thoroughly():
    """A thousand inputs by the shipped encoder; prints the largest share of the tolerance."""
    encoder, worst, seen = load_encoder("nutime-small"), [0.0], [0, 0]

    @settings(max_examples=int(os.environ.get("THOROUGH", "1000")))
    @given(inputs())
    def check(given_cases):
        worst.append(check_company(encoder, given_cases, features=4224))
        seen[0] += len(given_cases)
        seen[1] += sum(one.size for one in given_cases)

    check()
    print(f"\n{len(worst) - 1} inputs, {seen[0]} cases, {seen[1]} points: largest share of the tolerance {max(worst):.2f}")


# ---- What is refused

ONE = np.ones((3, 8))
NAN, INF = np.nan, np.inf
INVALID = {
    "none": (None, {}, "X is None"),
    "text": ("abc", {}, "'abc' does not exist; pass the path of"),
    "bytes": (b"abc", {}, "X is of type bytes"),
    "number": (3.0, {}, "X is of type float"),
    "dict": ({"a": ONE}, {}, "X is of type dict"),
    "set": ({1, 2}, {}, "X is of type set"),
    "object": (object(), {}, "X is of type object"),
    "class": (np.ndarray, {}, "X is of type type|does not convert|has shape"),
    "function": (len, {}, "X is of type builtin_function_or_method"),
    "one series": (np.ones(5), {}, r"X has shape \(5,\); pass .* one series alone is X.reshape\(1, -1\)"),
    "one list": ([1.0, 2.0], {}, "X is one series of 2 time points"),
    "range": (range(5), {}, "X is one series of 5 time points"),
    "pandas column": (pd.Series([1.0, 2.0]), {}, r"one series alone is X.reshape"),
    "scalar array": (np.array(1.0), {}, r"X has shape \(\)"),
    "four axes": (np.ones((2, 2, 2, 2)), {}, r"X has shape \(2, 2, 2, 2\); pass \(cases, time\)"),
    "five axes": (np.ones((1,) * 5), {}, "X has shape"),
    "empty list": ([], {}, "X has no series"),
    "empty array": (np.ones((0, 5)), {}, "X has no series"),
    "empty cube": (np.ones((0, 2, 5)), {}, "X has no series"),
    "no time": (np.ones((2, 0)), {}, r"X has 0 feature\(s\)"),
    "no channels": (np.ones((2, 0, 5)), {}, r"X has 0 feature\(s\)"),
    "empty case": ([[1.0], []], {}, "case 1 has no value"),
    "all missing": ([np.ones(3), np.full(3, NAN)], {}, "case 1 has no value that is not missing; remove it"),
    "all missing array": (np.array([[1.0, 2.0], [NAN, NAN]]), {}, "case 1 has no value that is not missing"),
    "all masked": (np.ma.masked_all((2, 3)), {}, "case 0 has no value"),
    "all missing channels": (np.full((1, 2, 3), NAN), {}, "case 0 has no value"),
    "infinite": (np.array([[1.0, INF]]), {}, "case 0 has infinite values"),
    "minus infinite": ([np.ones(2), np.array([-INF, 1.0])], {}, "case 1 has infinite values"),
    "beyond float32": (np.array([[1e39, 1.0]]), {}, "case 0 has infinite values or values beyond 3.4e38"),
    "long double": (np.array([[1e39, 1.0]], np.longdouble) ** 10, {}, "beyond 3.4e38"),
    "complex": (np.ones((2, 3), complex), {}, "Complex data not supported: X has complex128 values"),
    "complex case": ([np.ones(3, complex)], {}, "Complex data not supported: case 0 has complex128 values"),
    "texts": (np.array([["a", "b"]]), {}, "X has <U1 values"),
    "text case": ([["a", "b"]], {}, "X has <U1 values"),
    "list of texts": (["abc", "def"], {}, "case 0 is of type str"),
    "numbers as text": ([["1", "2"]], {}, "X has <U1 values; convert them to real numbers"),
    "dates": (np.array([["2024-01-01"]], "datetime64[D]"), {}, r"X has datetime64\[D\] values"),
    "durations": ([np.array([1, 2], "timedelta64[s]")], {}, r"case 0 has timedelta64\[s\] values"),
    "objects": (np.array([[1, {}], [2, 3]], dtype=object), {}, "X has objects that are not numbers"),
    "objects in a case": ([[1, {}]], {}, "X has objects that are not numbers"),
    "records": (np.zeros((2, 2), [("a", float)]), {}, "convert them to real numbers"),
    "ragged case": ([[[1, 2], [3]]], {}, "case 0 is not an array of numbers"),
    "three axes a case": ([np.ones((1, 2, 3)), np.ones((1, 2, 4))], {}, r"case 0 has shape \(1, 2, 3\); pass"),
    "scalar case": ([np.ones(3), np.array(2.0)], {}, r"case 1 has shape \(\)"),
    "none as a case": ([np.ones(3), None], {}, r"case 1 is None; pass it as an array \(time,\)"),
    "dict as a case": ([{"a": 1}], {}, "case 0 is of type dict"),
    "frame as a case": ([pd.DataFrame(ONE)], {}, "case 0 is of type DataFrame"),
    "generator as a case": ([(i for i in range(3))], {}, "case 0 is of type generator"),
    "channels differ": ([np.ones((1, 3)), np.ones((2, 3))], {}, r"cases have \[1, 2\] channels; every case needs the same number"),
    "empty frame": (pd.DataFrame(), {}, "X has no column of numbers"),
    "frame without rows": (wide(ONE[:0]), {}, "X has no series"),
    "frame of text": (pd.DataFrame({"a": ["x", "y"]}), {}, "X, row 1, column 'a': 'x' is not a number"),
    "frame of dates": (pd.DataFrame({"a": pd.to_datetime(["2024-01-01"])}), {}, "X, row 1, column 'a'"),
    "frame of missing": (pd.DataFrame({"a": [NAN], "b": [NAN]}), {}, "case 0 has no value"),
    "time without id": (pd.DataFrame({"time": [1], "a": [2.0]}), {}, "has a time column 'time' but no id column"),
    "two ids": (pd.DataFrame({"id": [1], "item_id": [1], "a": [2.0]}), {}, "has columns 'id' and 'item_id'"),
    "time twice": (pd.DataFrame({"id": [1, 1], "time": [1, 1], "a": [2.0, 3.0]}), {}, "series 1 has time 1 twice"),
    "no id in a row": (pd.DataFrame({"id": [1, None], "time": [1, 2], "a": [2.0, 3.0]}), {}, "X, row 2 has no id"),
    "no time in a row": (pd.DataFrame({"id": [1, 1], "time": [1, None], "a": [2.0, 3.0]}), {}, "is not a time"),
    "long without values": (pd.DataFrame({"id": [1, 1], "time": [1, 2]}), {}, "no column of numbers beside id and time"),
    "label changes": (pd.DataFrame({"id": [1, 1], "time": [1, 2], "label": [0, 1], "a": [1.0, 2.0]}), {}, "the label changes"),
    "lists beside numbers": (pd.DataFrame({"a": [[1.0, 2.0]], "b": [3.0]}), {}, "has lists of numbers beside the column 'b'"),
    "lists of unequal length": (pd.DataFrame({"a": [[1.0, 2.0]], "b": [[3.0]]}), {}, r"has lists of \[2, 1\] numbers"),
    "lists of texts": (pd.DataFrame({"a": [["x"]]}), {}, "column 'a' is not a list of numbers"),
    "lists of lists": (pd.DataFrame({"a": [[[1.0], [2.0, 3.0]]]}), {}, "column 'a' is not a list of numbers"),
    "index like a column": (
        wide(ONE).rename(columns={"t0": "time"}).rename_axis("time"),
        {},
        "an index that is called like a column",
    ),
    "layer too high": (ONE, {"layer": 2}, "layer 2 does not exist; choose 0 to 1, or none"),
    "layer below 0": (ONE, {"layer": -1}, "layer -1 does not exist"),
    "layer as text": (ONE, {"layer": "last"}, "layer 'last' does not exist"),
    "layer as a fraction": (ONE, {"layer": 1.0}, r"layer 1\.0 does not exist"),
    "layer as truth": (ONE, {"layer": True}, "layer True does not exist"),
    "layer as a list": (ONE, {"layer": [0, 1]}, r"layer \[0, 1\] does not exist"),
    "pooling unknown": (ONE, {"pooling": "max"}, "pooling 'max' is unknown; choose one of cls, mean"),
    "pooling of no name": (ONE, {"pooling": 3}, "pooling 3 is unknown"),
    "pooling array": (ONE, {"pooling": np.array(["cls", "mean"])}, "pooling array.* is unknown"),
    "channels unknown": (ONE, {"channels": "max"}, "channels 'max' is unknown; choose one of mean, concat, none"),
    "channels none": (ONE, {"channels": None}, "channels None is unknown"),
    "batch of 0": (ONE, {"batch_size": 0}, "batch_size is 0; choose an integer of 1 or more"),
    "batch below 0": (ONE, {"batch_size": -1}, "batch_size is -1"),
    "batch of a fraction": (ONE, {"batch_size": 1.5}, r"batch_size is 1\.5"),
    "batch of text": (ONE, {"batch_size": "8"}, "batch_size is '8'"),
    "batch of truth": (ONE, {"batch_size": True}, "batch_size is True"),
    "batch none": (ONE, {"batch_size": None}, "batch_size is None"),
    "tokens as text": (ONE, {"tokens": "yes"}, "tokens is 'yes'; choose True or False"),
    "tokens as a number": (ONE, {"tokens": 1}, "tokens is 1"),
    "options of an iterator": (iter(ONE), {"layer": 9}, "layer 9 does not exist"),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_cannot_be_embedded_is_rejected(encoder, name):
    wrong, options, message = INVALID[name]
    with pytest.raises(InputError, match=message) as caught:
        encoder.embed(wrong, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_misspelt_option_is_rejected(encoder):
    with pytest.raises(TypeError, match="readuot"):
        encoder.embed(ONE, readuot="cls")
    with pytest.raises(TypeError, match="positional"):
        encoder.embed(ONE, 3)
