import numpy as np
import pytest

from nutime_jax.data.datasets import BUNDLED, find_all_datasets, find_datasets
from nutime_jax.errors import InputError

TS_HEADER = "@problemName one\n@timestamps false\n@univariate true\n@equalLength true\n@classLabel true 1 2\n@data\n"


def test_every_bundled_set_is_read_whole():
    sets = find_datasets("bundled")
    assert [one.name for one in sets] == list(BUNDLED)
    trains = [one.read("train") for one in sets]
    assert sum(len(case) for cases in trains for case in cases.series) == 3983  # every channel a series
    assert [len(one.read("test").labels) for one in sets] == [100, 175, 40, 150, 1029, 370, 242, 50]
    assert {case.shape[-1] for case in trains[-1].series} != {324}  # unequal lengths are kept


@pytest.mark.parametrize("name", ["wide.csv", "Set_TRAIN.tsv", "one.ts", "both.npz"])
def test_each_format_is_read(tmp_path, name):
    values = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]])
    if name == "wide.csv":
        (tmp_path / name).write_text("1,2,3\n4,,6\n")
    elif name == "Set_TRAIN.tsv":
        (tmp_path / name).write_text("1\t1\t2\t3\n2\t4\tNaN\t6\n")
    elif name == "one.ts":
        (tmp_path / name).write_text(TS_HEADER + "1,2,3:1\n4,NaN,6:2\n")
    else:
        np.savez(tmp_path / name, X_train=values, y_train=[1, 2])
    cases = find_datasets(str(tmp_path / name))[0].read("train")
    np.testing.assert_array_equal(np.stack(cases.series)[:, 0], [[1, 2, 3], [4, 5, 6]])
    labels = {"wide.csv": None, "Set_TRAIN.tsv": ["1", "2"], "one.ts": ["1", "2"], "both.npz": ["1", "2"]}[name]
    assert (cases.labels if labels is None else list(cases.labels)) == labels


def test_a_folder_pairs_train_and_test(tmp_path):
    for name in ("A_TRAIN", "A_TEST", "b_train", "b_test"):
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / f"{name}.tsv").write_text("1\t1\t2\n")
    (tmp_path / "notes.txt").write_text("not a set")
    expected = [("A", "A_TEST.tsv"), ("b", "b_test.tsv")]
    assert [(one.name, one.test.name) for one in find_datasets(str(tmp_path))] == expected
    assert [(one.name, one.test.name) for one in find_datasets(str(tmp_path / "deep" / "A_TRAIN.tsv"))] == expected[:1]
    with pytest.raises(InputError, match="is a test split"):
        find_datasets(str(tmp_path / "deep" / "A_TEST.tsv"))


def test_a_folder_of_an_archive_gives_each_set_once(tmp_path):
    """As unpacked from the archives: one set in several formats and a channel at a time, beside notes."""
    for split in ("TRAIN", "TEST"):
        for name in ("A", "ADimension1", "ADimension2"):
            (tmp_path / f"{name}_{split}.arff").write_text("@data\n1,2,a\n")
        (tmp_path / f"A_{split}.txt").write_text("1 1 2\n")
    (tmp_path / "A_TRAIN.ts").write_text(TS_HEADER + "1,2:1\n")
    (tmp_path / "BDimension1_TRAIN.TSV").write_text("1\t1\t2\n")
    (tmp_path / "A.txt").write_text("Notes on A.")
    (tmp_path / "._A_TRAIN.ts").write_bytes(b"\xff")
    (tmp_path / "how_to_train.txt").write_text("Slowly.")
    sets = find_datasets(str(tmp_path))
    assert [one.train.name for one in sets] == ["A_TRAIN.arff", "BDimension1_TRAIN.TSV"]  # .ts comes first, but for its missing test
    assert sets[0].test.name == "A_TEST.arff"
    (tmp_path / "A_TEST.ts").write_text(TS_HEADER + "1,2:1\n")
    assert find_datasets(str(tmp_path))[0].train.name == "A_TRAIN.ts"


def test_arrays_that_are_no_series_are_skipped_in_a_folder_and_rejected_by_name(tmp_path, caplog):
    np.savez(tmp_path / "flat.npz", values=[1], offsets=[0])
    with pytest.raises(InputError, match="has no dataset"):
        find_datasets(str(tmp_path))
    np.savez(tmp_path / "set.npz", X_train=np.ones((2, 3)))
    assert [one.name for one in find_datasets(str(tmp_path))] == ["set"]
    assert "flat.npz is not a dataset, and is skipped: it has values, offsets" in caplog.text
    with pytest.raises(InputError, match="no array X_train; its arrays are: values, offsets"):
        find_datasets(str(tmp_path / "flat.npz"))[0].read("train")


def test_a_missing_label_is_empty_text(tmp_path):
    np.savez(tmp_path / "a.npz", X_train=np.ones((2, 3)), y_train=[1.0, np.nan])
    (files,) = find_datasets(str(tmp_path / "a.npz"))
    assert files.read("train").labels.tolist() == ["1", ""]


def test_sets_of_one_name_are_distinguished(tmp_path):
    for folder in ("uea", "transfer"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "Epilepsy.csv").write_text("1,2\n")
    sources = [str(tmp_path / "uea"), str(tmp_path / "transfer"), "GunPoint", "", str(tmp_path / "uea" / "Epilepsy.csv")]
    assert [one.name for one in find_all_datasets(sources)] == ["uea/Epilepsy", "transfer/Epilepsy", "GunPoint"]
    (tmp_path / "more" / "uea").mkdir(parents=True)
    (tmp_path / "more" / "uea" / "Epilepsy.csv").write_text("1,2\n")
    with pytest.raises(InputError, match="2 datasets are called uea/Epilepsy"):
        find_all_datasets([str(tmp_path)])


def test_lines_of_unequal_length_are_series_of_unequal_length(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n1,2,3\n1\n")
    assert [case.shape for case in find_datasets(str(tmp_path / "a.csv"))[0].read("train").series] == [(1, 2), (1, 3), (1, 1)]


def renamed(path):
    np.save(path.with_suffix(".npy"), np.zeros((2, 3)))
    path.with_suffix(".npy").rename(path)


def pickled(path):
    np.savez(path, X_train=np.array([{}], object))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "1,2\n3,four\n", "line 2, column 2: 'four' is not a number"),
        ("a.csv", "", "is empty"),
        ("a.csv", "1,2\n,\n3,4\n", "case 1 of .*a.csv"),
        ("a.npz", "no zip", "cannot be read as .npz"),
        ("a.npz", pickled, "cannot be read as .npz"),
        ("a.npz", lambda path: np.savez(path, values=[1]), "no array X_train; its arrays are: values"),
        ("a.npz", lambda path: np.savez(path, X_train=np.zeros((2, 3)), y_train=[1]), "should be"),
        ("a.npz", lambda path: np.savez(path, X_train=1.0), "should be"),
        ("a.npz", renamed, "cannot be read as .npz"),
        ("a.npz", lambda path: np.savez(path, X_train=np.zeros((0, 3)), y_train=[]), "has no series"),
        ("a.ts", TS_HEADER + "1,2,x:1\n", "cannot be read as .ts"),
        ("a.txt", "1", "is not a file of series"),
    ],
)
def test_a_bad_file_is_rejected_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    content(path) if callable(content) else path.write_text(content)
    with pytest.raises(InputError, match=message):
        find_datasets(str(path))[0].read("train")


@pytest.mark.parametrize(("source", "message"), [("Gunpoint", "bundled are ACSF1"), ("/nowhere", "not a file, a folder")])
def test_an_unknown_source_is_rejected(source, message):
    with pytest.raises(InputError, match=message):
        find_datasets(source)


def test_an_empty_folder_is_rejected(tmp_path):
    with pytest.raises(InputError, match="has no dataset"):
        find_datasets(str(tmp_path))


@pytest.fixture(scope="module")
def archives(pytestconfig):
    data = pytestconfig.rootpath.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the archives are not on this machine")
    return data


@pytest.mark.parametrize(("part", "count"), [("ucr", 63), ("uea", 10), ("train_only", 22), ("transfer", 2)])
def test_sets_of_the_archives_are_read_as_they_stand(archives, part, count):
    sets = find_datasets(str(archives / part))
    assert len(sets) == count
    for one in sets:
        with np.load(one.train, allow_pickle=False) as file:
            assert (one.test is None) == ("X_test" not in file)
            for split in ("train", "test")[: 1 if one.test is None else 2]:
                raw = one.read_raw(split)
                np.testing.assert_array_equal(np.stack(raw.series), file[f"X_{split}"])
                assert list(raw.labels) == [str(label) for label in file[f"y_{split}"]]


def test_unequal_lengths_are_kept(archives):
    vowels = find_datasets(str(archives / "uea" / "JapaneseVowels.npz"))[0].read("train")
    assert len({case.shape for case in vowels.series}) > 5


def test_the_archives_as_one_folder(archives, caplog):
    """Sets of one name are told apart, and the monitored series, which are no set, are passed over."""
    sets = find_all_datasets([str(archives)])
    assert len(sets) == 97
    assert {"uea/Epilepsy", "transfer/Epilepsy"} <= {one.name for one in sets}
    assert "KPI.npz is not a dataset, and is skipped" in caplog.text
