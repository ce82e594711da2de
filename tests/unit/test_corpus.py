import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nutime_jax.data import corpus as corpora
from nutime_jax.data.columns import Columns
from nutime_jax.data.corpus import open_corpus
from nutime_jax.data.datasets import BUNDLED, find_all_datasets, find_datasets
from nutime_jax.data.sources import find_sources
from nutime_jax.errors import InputError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def corpus(data_dir):
    return open_corpus(("bundled",), data_dir=data_dir, max_length=4096)


def files(folder):
    """Path -> content of all that a reader could open."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock" and "incomplete" not in str(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_bundled_corpus(corpus):
    assert len(corpus) == 3983
    assert len(corpus.class_sizes) == 46
    assert corpus.max_length == 1460


def restored(record):
    return record.values.astype(np.float64) + np.float64(record.offset)


def test_records_and_class_sizes_line_up(corpus):
    expected = []
    for one in find_all_datasets(["bundled"]):
        cases = one.read("train")
        for label in np.unique(cases.labels):
            expected.append([channel for case, own in zip(cases.series, cases.labels, strict=True) if own == label for channel in case])
    assert [len(series) for series in expected] == list(corpus.class_sizes)
    starts = np.cumsum(corpus.class_sizes) - corpus.class_sizes
    first, last = corpus.read(starts), corpus.read(starts + corpus.class_sizes - 1)
    for series, a, b in zip(expected, first, last, strict=True):
        np.testing.assert_array_equal(restored(a), series[0])
        np.testing.assert_array_equal(restored(b), series[-1])


def test_the_parts_of_a_corpus_lie_end_to_end(corpus, data_dir, tmp_path):
    (tmp_path / "mine.csv").write_text("1,2,3\n4,5,6\n")
    both = open_corpus(("bundled", str(tmp_path / "mine.csv")), data_dir=data_dir, max_length=4096)
    assert [part.name for part in both.parts] == ["bundled", "mine"]
    assert len(both) == len(corpus) + 2
    assert both.class_parts.tolist() == [0] * 46 + [1]
    asked = np.array([len(corpus) + 1, 5, len(corpus), 5])
    series = [restored(record).tolist() for record in both.read(asked)]
    own = restored(corpus.read(np.array([5]))[0]).tolist()
    assert series == [[4, 5, 6], own, [1, 2, 3], own]
    assert both.digest != corpus.digest


def test_a_built_corpus_is_found_again(corpus, data_dir):
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    assert open_corpus(("bundled",), data_dir=data_dir, max_length=4096).digest == corpus.digest
    after = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    assert {path: after[path] for path in before} == before


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
    np.testing.assert_array_equal(np.concatenate([restored(record) for record in corpus.read(np.arange(4))]), np.arange(100))


def test_columns_of_tables_are_named(tmp_path):
    """Another role makes another part, with the records of that role."""
    (tmp_path / "a.csv").write_text("pump,a,b,state\n7,1.5,2,1\n8,3,4,2\n")
    source, folder = (str(tmp_path / "a.csv"),), {"data_dir": tmp_path / "data", "max_length": 10}
    named = open_corpus(source, **folder, columns=Columns(id="pump", label="state"))
    assert [restored(record).tolist() for record in named.read(np.arange(2))] == [[1.5, 2], [3, 4]]
    assert len(named.class_sizes) == 2
    assert [restored(record).tolist() for record in open_corpus(source, **folder).read(np.arange(2))] == [[7, 1.5, 2, 1], [8, 3, 4, 2]]


def test_a_large_offset_is_kept_apart(tmp_path):
    x = 1.7e9 + np.sin(np.arange(50.0))
    np.savez(tmp_path / "a.npz", X_train=x[None])
    (record,) = open_corpus((str(tmp_path / "a.npz"),), data_dir=tmp_path / "data", max_length=100).read(np.array([0]))
    np.testing.assert_allclose(record.values.astype(np.float64) + np.float64(record.offset), x, rtol=0, atol=1e-6)


def test_the_card_says_what_went_in(corpus):
    card = corpus.parts[0].card
    assert [name for name, *_ in card["sets"]] == list(BUNDLED)
    assert sum(cases for *_, cases in card["sets"]) == sum(len(one.read("train").series) for one in find_all_datasets(["bundled"]))
    assert (card["min_length"], card["max_length"]) == (7, 1460)
    assert "UCR" in card["licence"]
    assert set(card["versions"]) == {"numpy", "tensorflow-datasets", "array-record", "aeon"}
    assert [re.sub(r"-000.*", "", name) for name in card["files"]] == ["series_corpus-train.array_record"]
    json.dumps(card)


def test_the_licence_beside_the_files_goes_into_the_card(tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "a.csv").write_text("1,2\n")
    (tmp_path / "sets" / "LICENSE.txt").write_text("for research alone")
    assert find_sources([str(tmp_path / "sets")])[0].licence == "for research alone"
    (tmp_path / "sets" / "LICENSE.txt").unlink()
    assert "not stated" in find_sources([str(tmp_path / "sets")])[0].licence


def test_sources_have_names_of_their_own(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "data" / "x.csv").write_text("1,2\n")
    a, b = str(tmp_path / "a" / "data"), str(tmp_path / "b" / "data")
    with pytest.raises(InputError, match=f"two of data.sources are called data; name one otherwise: other_name={b}"):
        find_sources([a, b])
    assert [one.name for one in find_sources([a, f"mine={b}"])] == ["data", "mine"]
    with pytest.raises(InputError, match="adds nothing to the sources before it"):
        find_sources(["bundled", "GunPoint"])


def test_no_sources_and_no_room_are_rejected(tmp_path):
    with pytest.raises(InputError, match="the corpus is empty"):
        open_corpus((), data_dir=tmp_path, max_length=10)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the corpus"):
        open_corpus(("GunPoint",), data_dir=tmp_path / "file", max_length=10)


@pytest.mark.parametrize("change", ["sizes", "files", "card", "features", "other JSON", "pipe"])
def test_a_card_that_was_changed_is_damage(tmp_path, change):
    np.savez(tmp_path / "mine.npz", X=np.arange(12.0).reshape(3, 4), y=[0, 0, 1])
    source = [str(tmp_path / "mine.npz")]
    open_corpus(source, data_dir=tmp_path / "data", max_length=9)
    (path,) = (tmp_path / "data").rglob("features.json" if change == "features" else "metadata.json")
    card = json.loads(path.read_text())
    path.unlink()
    if change == "pipe":
        os.mkfifo(path)
    elif change == "features":
        path.write_text(json.dumps(card).replace("float32", "float64"))
    elif change == "other JSON":
        path.write_text("[" * 200_000)
    elif change == "sizes":
        path.write_text(json.dumps({**card, "classes": [["mine/0", 1], ["mine/1", 2]]}))
    else:
        path.write_text(json.dumps({**card, change: {}}))
    with pytest.raises(InputError, match="is damaged, or is not a corpus of this library; remove it"):
        open_corpus(source, data_dir=tmp_path / "data", max_length=9)


def test_a_licence_that_is_a_pipe_is_not_opened(tmp_path):
    np.savez(tmp_path / "mine.npz", X=np.ones((2, 3)))
    os.mkfifo(tmp_path / "LICENSE")
    (source,) = find_sources([str(tmp_path)])
    assert source.licence.startswith("not stated")


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    open_corpus(("GunPoint",), data_dir=tmp_path, max_length=4096)
    (shard,) = tmp_path.rglob("*.array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content if damage == "flip" else content[:-100])
    if damage == "delete":
        shard.unlink()
    with pytest.raises(InputError, match=f"{re.escape(str(shard))} is (damaged|missing); remove {re.escape(str(shard.parent))}"):
        open_corpus(("GunPoint",), data_dir=tmp_path, max_length=4096)


BUILD = """
import resource, signal, sys
from nutime_jax.data.corpus import open_corpus
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
print("ready", flush=True)
open_corpus(sys.argv[3:], data_dir=sys.argv[2], max_length=100)
"""


def build(data_dir, *sources, largest_file=-1, **options):
    command = [sys.executable, "-c", BUILD, str(largest_file), str(data_dir), *sources]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options)


@pytest.mark.slow
def test_a_killed_build_goes_on_with_the_part_it_was_in(tmp_path):
    sources = ["GunPoint", "ArrowHead", "JapaneseVowels", "OSULeaf"]
    open_corpus(sources, data_dir=tmp_path / "whole", max_length=100)
    kept = {}
    for wait in (0.0, 0.1, 0.2, 0.4, 0.8):
        process = build(tmp_path / "killed", *sources)
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = files(tmp_path / "killed") if (tmp_path / "killed").exists() else {}
        assert kept.items() <= now.items()  # finished parts are never touched again
        kept = now
    open_corpus(sources, data_dir=tmp_path / "killed", max_length=100)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("incomplete*"))


@pytest.mark.slow
def test_two_builds_at_once_do_not_disturb_each_other(tmp_path):
    processes = [build(tmp_path / "shared", "GunPoint", "ArrowHead") for _ in range(2)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    open_corpus(("GunPoint", "ArrowHead"), data_dir=tmp_path / "alone", max_length=100)
    assert files(tmp_path / "shared") == files(tmp_path / "alone")


def test_a_full_disk_leaves_nothing_half_built(tmp_path):
    """A limit on the size of files stands for the disk."""
    for name in ("GunPoint", "OSULeaf"):
        train = find_datasets(name)[0].read("train")
        np.savez(tmp_path / f"{name}.npz", X_train=np.stack(train.series), y_train=train.labels)
    sources = [str(tmp_path / f"{name}.npz") for name in ("GunPoint", "OSULeaf")]
    process = build(tmp_path / "data", *sources, largest_file=20_000, stderr=subprocess.PIPE)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "InputError: cannot write the corpus to" in said.splitlines()[-1]
    assert "File too large" in said.splitlines()[-1]
    assert not [path for path in (tmp_path / "data").rglob("*") if "array_record" in path.name and "OSULeaf" in str(path)]
    assert len(open_corpus(sources, data_dir=tmp_path / "data", max_length=100)) > 0


def test_sets_are_packed_into_shards_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "SHARD_BYTES", 100)
    for name, size in (("a", 60), ("b", 60), ("c", 30), ("d", 500), ("e", 10)):
        (tmp_path / f"{name}.csv").write_text("1," * (size // 2 - 1) + "1\n")
    (source,) = find_sources([str(tmp_path)])
    assert [[one.name for one in shard] for shard in corpora._pack(source.sets)] == [["a"], ["b", "c"], ["d"], ["e"]]
    corpus = open_corpus([str(tmp_path)], data_dir=tmp_path / "data", max_length=1000)
    assert len(corpus.parts[0].card["files"]) == 4
    assert [len(record.values) for record in corpus.read(np.arange(5))] == [30, 30, 15, 250, 5]


@pytest.mark.slow
def test_the_archives_are_built_whole(tmp_path, pytestconfig):
    data = pytestconfig.rootpath.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the archives are not on this machine")
    corpus = open_corpus([str(data / "ucr"), str(data / "uea"), str(data / "train_only")], data_dir=tmp_path, max_length=4096)
    assert len(corpus) == 65_080
