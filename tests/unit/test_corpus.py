import numpy as np
import pytest

from nutime_jax.data.archives import find_all
from nutime_jax.data.corpus import open_corpus
from nutime_jax.data.pipeline import batches, draw_records
from nutime_jax.errors import InputError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def corpus(data_dir):
    return open_corpus(("bundled",), data_dir=data_dir, max_length=4096)


def test_the_bundled_corpus(corpus):
    assert len(corpus) == 3983
    assert len(corpus.class_sizes) == 46
    assert corpus.max_length == 1460


def test_records_and_class_sizes_line_up(corpus):
    expected = []
    for one in find_all(["bundled"]):
        cases = one.read("train")
        for label in np.unique(cases.labels):
            expected.append([channel for case, own in zip(cases.series, cases.labels, strict=True) if own == label for channel in case])
    assert [len(series) for series in expected] == list(corpus.class_sizes)
    starts = np.cumsum(corpus.class_sizes) - corpus.class_sizes
    for start, series in zip(starts, expected, strict=True):
        np.testing.assert_array_equal(corpus.source[int(start)]["series"], series[0])
        np.testing.assert_array_equal(corpus.source[int(start) + len(series) - 1]["series"], series[-1])


def test_a_built_corpus_is_found_again(corpus, data_dir):
    before = sorted((path, path.stat().st_mtime_ns) for path in data_dir.rglob("*"))
    assert open_corpus(("bundled",), data_dir=data_dir, max_length=4096).digest == corpus.digest
    assert sorted((path, path.stat().st_mtime_ns) for path in data_dir.rglob("*")) == before


def test_changed_files_make_another_corpus(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1,2\n")
    first = open_corpus((str(path),), data_dir=tmp_path / "data", max_length=10)
    path.write_text("1,2\n3,4\n")
    second = open_corpus((str(path),), data_dir=tmp_path / "data", max_length=10)
    assert (len(first), len(second)) == (1, 2)
    assert first.digest != second.digest


def test_long_series_are_cut(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(map(str, range(100))) + "\n")
    corpus = open_corpus((str(tmp_path / "a.csv"),), data_dir=tmp_path / "data", max_length=30)
    assert corpus.max_length == 25
    np.testing.assert_array_equal(np.concatenate([corpus.source[i]["series"] for i in range(4)]), np.arange(100))


def test_no_sources_and_no_room_are_refused(tmp_path):
    with pytest.raises(InputError, match="the corpus is empty"):
        open_corpus((), data_dir=tmp_path, max_length=10)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the corpus"):
        open_corpus(("GunPoint",), data_dir=tmp_path / "file", max_length=10)


def test_every_class_is_drawn_alike():
    sizes = np.array([1, 10, 1000])
    drawn = np.concatenate([draw_records(sizes, seed=0, step=step, batch_size=1000) for step in range(30)])
    shares = np.histogram(drawn, [0, 1, 11, 1011])[0] / len(drawn)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.015)
    assert len(np.unique(drawn)) == 1011  # and within a class, every record


def read(corpus, **options):
    return list(batches(corpus, batch_size=8, seed=3, **options))


def test_a_batch_depends_on_its_step_alone(corpus):
    whole, tail = read(corpus, start=0, stop=6), read(corpus, start=4, stop=6)
    assert len(whole) == 6
    assert whole[0]["series"].shape == (8, 1460)
    for a, b in zip(whole[4:], tail, strict=True):
        np.testing.assert_array_equal(a["series"], b["series"])
        np.testing.assert_array_equal(a["length"], b["length"])
    assert not np.array_equal(whole[0]["series"], whole[1]["series"])


def test_the_shards_of_a_batch_are_the_batch(corpus):
    (whole,) = read(corpus, start=2, stop=3)
    parts = [read(corpus, start=2, stop=3, shard=i, shards=4)[0] for i in range(4)]
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
