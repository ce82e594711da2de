import logging
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import DataConfig
from nutime_jax.data import loader
from nutime_jax.data.corpus import _features, _record_values, open_corpus
from nutime_jax.data.device_corpus import load_device_corpus
from nutime_jax.data.loader import class_sampling_probs, iterate_batches, load_indices, load_padded, sample_record_indices, source_shares
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.errors import InputError
from nutime_jax.training.input_pipeline import choose_on_device, corpus_views


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two parts: 8 sets, and two classes of 3 and 30 series."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    np.savez(folder / "mine.npz", X_train=1e9 + rng.normal(size=(33, 40)), y_train=[0] * 3 + [1] * 30)
    return open_corpus(("bundled", str(folder / "mine.npz")), data_dir=folder / "data", max_length=4096)


@pytest.fixture(scope="module")
def shares(corpus):
    return class_sampling_probs(corpus, alpha=0.0)


def test_shares_follow_alpha_and_weights(corpus):
    sizes = corpus.class_sizes
    np.testing.assert_allclose(class_sampling_probs(corpus, alpha=0.0), 1 / len(sizes))
    np.testing.assert_allclose(class_sampling_probs(corpus, alpha=1.0), sizes / sizes.sum())
    mixed = class_sampling_probs(corpus, alpha=0.5, weights=(3, 1))
    np.testing.assert_allclose([mixed[:46].sum(), mixed[46:].sum()], [0.75, 0.25])
    np.testing.assert_allclose(mixed[47] / mixed[46], np.sqrt(10))
    np.testing.assert_allclose(class_sampling_probs(corpus, alpha=0.0, weights=(0, 2))[-2:], 0.5)


def test_unlabelled_series_count_as_mean_labelled_ones(corpus, tmp_path):
    np.savez(tmp_path / "plant.npz", X=np.random.default_rng(0).normal(size=(1000, 3, 20)))
    sources, options = ("bundled", str(tmp_path / "plant.npz")), {"data_dir": tmp_path / "data", "max_length": 4096}
    mixed = open_corpus(sources, **options)
    series = len(mixed) - 3000
    for alpha in (0.0, 0.5, 1.0):
        shares = source_shares(mixed, alpha=alpha)
        assert shares == pytest.approx({"bundled": series / (series + 3000), "plant": 3000 / (series + 3000)})
    assert source_shares(mixed, alpha=0.0, weights=(1, 3)) == pytest.approx({"bundled": 0.25, "plant": 0.75})
    alone = open_corpus(sources[1:], **options)
    np.testing.assert_array_equal(class_sampling_probs(alone, alpha=0.0), [1.0])


@pytest.mark.parametrize("weights", [(1,), (1, -1), (0, 0), (1, float("inf")), (1, float("nan"))])
def test_weights_that_do_not_fit_are_rejected(corpus, weights):
    with pytest.raises(InputError, match=r"data.source_weights is .*; give a number for each of bundled, mine, one above 0"):
        class_sampling_probs(corpus, alpha=0.0, weights=weights)


def test_records_are_drawn_by_the_shares_of_their_classes():
    sizes = np.array([1, 10, 1000])
    for shares in ([1 / 3] * 3, [0.2, 0.5, 0.3]):
        drawn = np.concatenate([sample_record_indices(sizes, np.array(shares), seed=0, step=step, batch_size=1000) for step in range(30)])
        counts = np.histogram(drawn, [0, 1, 11, 1011])[0]
        np.testing.assert_allclose(counts / len(drawn), shares, atol=0.015)  # 5 standard deviations of a share of 30,000
        assert len(np.unique(drawn)) == 1011  # and within a class, every record


def read(corpus, shares, **options):
    return list(iterate_batches(corpus, shares, batch_size=8, seed=3, **options))


@pytest.mark.parametrize("series", [8, 33, 2048])  # read of 1, 4 and all steps at once
def test_a_batch_depends_on_its_step_alone(corpus, shares, series, monkeypatch):
    monkeypatch.setattr(loader, "READ_SERIES", series)
    whole, tail = read(corpus, shares, start=0, stop=6), read(corpus, shares, start=4, stop=6)
    assert len(whole) == 6
    assert whole[0]["series"].shape == (8, 1460)
    for a, b in zip(whole[4:], tail, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert not np.array_equal(whole[0]["series"], whole[1]["series"])


def test_the_rows_of_a_batch_are_the_batch(corpus, shares):
    (whole,) = read(corpus, shares, start=2, stop=3)
    parts = [read(corpus, shares, start=2, stop=3, rows=np.arange(2 * i, 2 * i + 2))[0] for i in range(4)]
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])


def test_a_corpus_on_the_device_is_the_corpus(corpus, shares):
    packed = load_device_corpus(corpus)
    for number in (0, 3982, 3983, len(corpus) - 1):
        (record,) = corpus.read(np.array([number]))
        start = packed.starts[number]
        np.testing.assert_array_equal(packed.values[start : start + packed.lengths[number]], record.values)
        assert packed.offsets[number] == record.offset
    assert len(packed.starts) == len(corpus)
    assert packed.starts[-1] + packed.lengths[-1] == len(packed.values)


def test_a_record_is_what_the_decoder_of_tfds_returns(corpus):
    (first, *_), decoder = corpus.parts, _features()
    for number in range(0, len(first.records), 37):
        (example,) = first.records.__getitems__([number])
        decoded = decoder.deserialize_example_np(example)["record"]
        np.testing.assert_array_equal(_record_values(example), decoded, strict=True)
    for length in (1, 26, 27, 28, 4095, 4096, 600_000):  # lengths of messages have one to four bytes
        example = decoder.serialize_example({"record": np.arange(length, dtype=np.float32)})
        np.testing.assert_array_equal(_record_values(example), np.arange(length, dtype=np.float32), strict=True)


def test_views_of_a_corpus_on_the_device_are_those_of_padded_series(corpus, shares):
    views = jax.jit(partial(corpus_views, size=64, ratio=(0.5, 1.0)))
    padded, indices = (read(corpus, shares, start=1, stop=2, load=load)[0] for load in (load_padded, load_indices))
    streamed = views(jax.random.key(1), padded)
    held = views(jax.random.key(1), {**indices, "corpus": jax.tree.map(jnp.asarray, load_device_corpus(corpus))})
    assert streamed.values.shape == (8, 2, 1, 64)
    jax.tree.map(np.testing.assert_array_equal, streamed, held)


def test_a_small_corpus_is_held_on_the_device_by_default(corpus, caplog):
    data, mesh = DataConfig(), make_mesh(1)
    with caplog.at_level(logging.INFO):
        assert choose_on_device(data, corpus, mesh)
        assert not choose_on_device(replace(data, on_device=False), corpus, mesh)
        assert not choose_on_device(data, replace(corpus, parts=corpus.parts * 1000), mesh)  # 1.4 GB
        assert not choose_on_device(data, None, mesh)
    texts = ["in device memory (at most 1 GB", "streamed (data.on_device is false)", "streamed (at most 1 GB"]
    assert all(text in message for text, message in zip(texts, caplog.messages, strict=True))
    with pytest.raises(InputError, match="more than 2147483647"):
        load_device_corpus(replace(corpus, parts=corpus.parts * 10_000))
