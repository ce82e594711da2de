"""Every format gives the series that stand in the file, and what is no series is refused by file and place."""

import contextlib
import gzip
import re
import zipfile
from pathlib import Path

import aeon.datasets
import numpy as np
import pandas as pd
import pytest

from nutime_jax.data.datasets import find_datasets
from nutime_jax.data.formats import READERS
from nutime_jax.errors import InputError

AEON = Path(aeon.datasets.__file__).parent / "data"
VALUES = np.array([[0.1, 2, 3], [4, np.nan, 6.5]])


def read(path, split="train"):
    return find_datasets(str(path))[0].read_raw(split)


def assert_values(cases, expected=VALUES, labels=None):
    np.testing.assert_array_equal(np.concatenate(cases.series), expected)
    assert all(one.dtype == np.float64 for one in cases.series)
    assert (cases.labels if cases.labels is None else list(cases.labels)) == labels


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("a.csv", "0.1,2,3\n4,,6.5\n", None),
        ("a.csv", "\n0.1, 2, 3\n\n4, NA, 6.5\n", None),
        ("a.csv", "\n \na,b,c\n\n0.1, 2, 3\n  \n4, NA, 6.5\n", None),
        ("a.csv", "a,b,c\n0.1,2,3\n4,,6.5\n", None),
        ("a.csv", ",0,1,2\n0,0.1,2,3\n1,4,,6.5\n", None),  # with the numbers that pandas gives to columns and rows
        ("a.csv", ",a,,c\n0,0.1,2,3\n1,4,,6.5\n", None),
        ("a.csv", "Unnamed: 0,a,b,c\n0,0.1,2,3\n1,4,,6.5\n", None),
        ("a.csv", "0,1,2,Label\n0.1,2,3,up\n4,?,6.5,null\n", ["up", "null"]),
        ("a.csv", "\ufeffclass,v,w,x\r\n1.0,0.1,2,3\r\n2.0,4,n/a,6.5\r\n", ["1", "2"]),
        ("a.csv", 'y,id,v,w,x\n"a,b",7,0.1,2,3\nb,8,4,null,6.5\n', ["a,b", "b"]),
        ("A.CSV", "target,v,w,x\n0.5,0.1,2,3\n1,4,,6.5\n", ["0.5", "1.0"]),
        ("a.csv", "0.1;2;3\n4;;6.5\n", None),
        ("a.csv", "0,1;2;3\n4;;6,5\n", None),
        ("a.csv", "label;v;w;x\nup;0,1;2;3\n;4;;6,5\n", ["up", ""]),
        ("a.csv", "sep=;\na;b;c\n0,1;2;3\n4;;6,5\n", None),
        ("a.csv", "sep=,\na,b,c\n0.1,2,3\n4,,6.5\n", None),
        ("a.csv", "# pump 7\n# in bar\na,b,c\n0.1,2,3\n4,,6.5\n", None),
        ("a.csv", "# pump 7\n0.1,2,3\n4,,6.5\n", None),
        ("a.csv", "label,v,w,x\nup,0.1,2,3\n,4,,6.5\n", ["up", ""]),
        ("a.csv", "label\tv\tw\tx\nup\t0,1\t2\t3\n\t4\t\t6,5\n", ["up", ""]),
        ("a.csv", "label|v|w|x\n01|0.1|2|3\n02|4|-|6.5\n", ["01", "02"]),
        ("a.csv", "1.0e-01 2.0 3\n4 nan 6.5\n", None),  # as numpy.savetxt writes
        ("a.csv", "label,v,w,x\n up ,0.1,2,3\ndown,4,#N/A,6.5\n,,,\n,,,\n", ["up", "down"]),  # as Excel writes
        ("a.csv", "0.1,2,3\n4,#DIV/0!,6.5\n,,\n", None),
        ("a.csv", "place,2021,2022,2023\nBonn,0.1,2,3\nRom,4,,6.5\n", None),
        ("a.csv", 'label,series\nup,"[0.1, 2, 3]"\n,"[4, nan, 6.5]"\n', ["up", ""]),
        ("a_TRAIN.tsv", "up,0.1,2,3\n,4,NaN,6.5\n", ["up", ""]),
        ("a_TRAIN.tsv", "up\t0.1\t2\t3\n\t4\tNaN\t6.5\n", ["up", ""]),
        ("a_TRAIN.tsv", "1\t0.1\t2\t3\n-1\t4\tNaN\t6.5\n", ["1", "-1"]),
        ("a_TRAIN.tsv", "up\t0.1\t2\t3\ndown\t4\t\t6.5\n", ["up", "down"]),
        ("a.tsv", "label\tv\tw\tx\n1\t0.1\t2\t3\n2\t4\t\t6.5\n", ["1", "2"]),
        ("a_TRAIN.txt", "  1.0000000e+00   1.0e-01  2 3\n  2.0000000e+00   4 NaN 6.5\n", ["1", "2"]),
        ("a_TRAIN.txt", "1,0.1,2,3\n2,4,NaN,6.5\n", ["1", "2"]),
    ],
)
def test_texts(tmp_path, name, text, labels):
    (tmp_path / name).write_text(text)
    assert_values(read(tmp_path / name), labels=labels)


@pytest.mark.parametrize(
    ("name", "arrays", "labels"),
    [
        ("both.npz", {"X_train": VALUES, "y_train": [1.0, 2.0]}, ["1", "2"]),
        ("both.npz", {"X_train": VALUES[:, None], "y_train": np.array([b"a", b"b"])}, ["a", "b"]),
        ("lone.npz", {"X": VALUES}, None),
        ("lone.npz", {"X": VALUES, "y": [True, False]}, ["True", "False"]),
    ],
)
def test_npz(tmp_path, name, arrays, labels):
    np.savez(tmp_path / name, **arrays)
    assert_values(read(tmp_path / name), labels=labels)
    assert find_datasets(str(tmp_path))[0].test is None


def test_npy(tmp_path):
    for split in ("train", "test"):
        np.save(tmp_path / f"X_{split}.npy", VALUES[:, None])
        np.save(tmp_path / f"y_{split}.npy", [3, 4])
    np.save(tmp_path / "lone.npy", VALUES.astype(np.float32))
    one, lone = find_datasets(str(tmp_path))[::-1] if tmp_path.name > "lone" else find_datasets(str(tmp_path))
    assert (one.name, lone.name, lone.test) == (tmp_path.name, "lone", None)
    assert_values(one.read_raw("train"), labels=["3", "4"])
    assert_values(one.read_raw("test"), labels=["3", "4"])
    assert lone.read_raw("train").labels is None
    assert lone.read_raw("train").series[0].dtype == np.float32


WRITERS = {
    ".parquet": pd.DataFrame.to_parquet,
    ".feather": pd.DataFrame.to_feather,
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_wide_tables(tmp_path, suffix):
    frame = pd.DataFrame({"b": VALUES[:, 0], "LABEL": ["up", "down"], "a": VALUES[:, 1], "0": VALUES[:, 2]})
    WRITERS[suffix](frame, tmp_path / f"a{suffix}")
    assert_values(read(tmp_path / f"a{suffix}"), labels=["up", "down"])


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "times",
    [
        [10, 1, 9, 2, 8],
        ["2024-03-10", "2024-01-31", "2024-03-01", "2024-02-01 12:00", "2024-02-28"],
        ["10.3.2024", "31.01.2024", "1.3.2024", "1.2.2024 12:00", "28.02.2024"],
        [20240202, 20240130, 20240201, 20240131, 20240131],
    ],
)
def test_long_tables_are_ordered_by_time_and_keep_the_order_of_their_series(tmp_path, suffix, times):
    series = ["late", "early", "late", "early", "late"]
    columns = {
        "series_id": series,
        "ds": times,
        "y": [3.0, 1.5, 2, np.nan, 1],
        "z": [0, 1, 2, 3, 4],
        "class": [str(len(one)) for one in series],
    }
    WRITERS[suffix](pd.DataFrame(columns | {"place": ["Bonn"] * 5}), tmp_path / f"a{suffix}")
    cases = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(cases.series[0], [[1, 2, 3], [4, 2, 0]])
    np.testing.assert_array_equal(cases.series[1], [[1.5, np.nan], [1, 3]])
    assert list(cases.labels) == ["4", "5"]


MOMENTS = pd.to_datetime(["2024-02-01", "2024-01-01"])


@pytest.mark.parametrize("times", [MOMENTS, MOMENTS.tz_localize("Asia/Tokyo"), MOMENTS.date, MOMENTS - MOMENTS[1]])
@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_moments_and_float32_of_columnar_files(tmp_path, suffix, times):
    frame = pd.DataFrame({"v": np.float32([1, 2]), "t": times}, index=pd.Index([7, 7], name="id"))
    WRITERS[suffix](frame if suffix == ".parquet" else frame.reset_index(), tmp_path / f"a{suffix}")
    (one,) = read(tmp_path / f"a{suffix}").series
    np.testing.assert_array_equal(one, np.float32([[2, 1]]), strict=True)


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_lists_are_series(tmp_path, suffix):
    lists = [[1.0, 2.0, None], [3.0]]
    WRITERS[suffix](pd.DataFrame({"item_id": [5, 6], "v": lists, "w": lists, "target": [0, 1]}), tmp_path / f"a{suffix}")
    cases = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(cases.series[0], [[1, 2, np.nan]] * 2)
    np.testing.assert_array_equal(cases.series[1], [[3.0]] * 2)
    assert list(cases.labels) == ["0", "1"]


@pytest.mark.parametrize(
    "name", ["ArrowHead_TRAIN.arff", "BasicMotions_TRAIN.arff", "GunPoint_TRAIN.arff", "ArrowHead_TRAIN.tsv", "GunPoint_TRAIN.tsv"]
)
def test_the_formats_of_the_archives_agree(name):
    path = AEON / name.partition("_")[0] / name
    other, own = read(path.with_suffix(".ts")), read(path)
    np.testing.assert_allclose(np.stack(own.series), np.stack(other.series), rtol=1e-6, atol=1e-8)  # .ts has fewer digits
    assert [label.lower() for label in own.labels] == list(other.labels)


TS = "@problemName one\n@timestamps false\n@univariate true\n@equalLength true\n@classLabel true 1 2\n@data\n"
ARFF = "% notes\n@relation one\n@attribute a numeric\n@attribute b numeric\n@attribute target {1,2}\n@data\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ts", TS + "# first\n1,2:1\n# second\n3,4:2\n"),
        ("a.arff", ARFF + "% first\n1,2,1\n\n% second\n3,4,2\n"),
        (
            "a.arff",
            "@relation one\n@attribute x relational\n@attribute a numeric\n@attribute b numeric\n@end x\n@attribute c {1,2}\n@data\n"
            + '"1,2\\n1,2",1\n"3,4\\n3,4",2\n',
        ),
    ],
)
def test_comments_between_cases_and_double_quotes(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    cases = read(tmp_path / name)
    np.testing.assert_array_equal([case[-1] for case in cases.series], [[1, 2], [3, 4]])
    assert cases.labels.tolist() == ["1", "2"]


def test_a_compressed_text_is_read_and_a_damaged_one_rejected(tmp_path):
    (tmp_path / "a_TRAIN.csv.gz").write_bytes(gzip.compress(b"a,b,c\n0.1,2,3\n4,,6.5\n"))
    assert_values(read(tmp_path / "a_TRAIN.csv.gz"))
    assert [files.name for files in find_datasets(str(tmp_path))] == ["a"]
    (tmp_path / "b.csv.gz").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(InputError, match=r"b\.csv\.gz is a damaged archive"):
        read(tmp_path / "b.csv.gz")


def test_cases_without_a_label_are_skipped_and_counted(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("label,v,w\nup,1,2\n,3,4\ndown,5,6\n")
    cases = find_datasets(str(tmp_path / "a.csv"))[0].read_labelled("train")
    assert cases.labels.tolist() == ["up", "down"]
    np.testing.assert_array_equal(np.concatenate(cases.series), [[1, 2], [5, 6]])
    assert "1 of 3 cases of" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "label,v,w\n0.5,1,2\n1.5,3,4\n"),
        ("a.ts", TS.replace("classLabel true 1 2", "targetlabel true") + "1,2:1.0\n3,4:2.0\n"),
    ],
)
def test_targets_of_a_regression_are_not_classes(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (files,) = find_datasets(str(tmp_path / name))
    assert len(files.read("train").series) == 2
    with pytest.raises(InputError, match=rf"{name} \(train\) has real numbers as labels; a classification needs classes"):
        files.read_labelled("train")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "a.csv is empty; remove it"),
        ("a.csv", " \n\n", "a.csv is empty"),
        ("a.csv", "a,b\n", "a.csv has no series"),
        ("a.csv", "1,2\n3,four\n", "a.csv, line 2, column 2: 'four' is not a number"),
        ("a.csv", "1,two\n3,4\n", "a.csv, line 1, column 2: 'two' is not a number"),
        ("a.csv", "a,b\n\n1,2\n3\n", "a.csv, line 4 is ragged: the header has 2 cells, this line 1"),
        ("a.csv", "a,b\n1,2\n3,4,5\n", "a.csv, line 3 is ragged: the header has 2 cells, this line 3"),
        ("a.csv", "a;b\n1.234;2,5\n3;4,5\n", "a.csv, line 2, column 'a': '1.234' is not a number"),  # not 1234, and not 1.234
        ("a.csv", "1.234;2,5\n", "a.csv, line 1, column 1: '1.234' is not a number"),
        ("a.csv", "walk,0.3,0.1\n", "a.csv, line 1, column 1: 'walk' is not a number; .* write a first line of column names"),
        ("a.csv", "a,b\n\n1,2\n3,four\n", "a.csv, line 4, column 'b': 'four' is not a number"),
        ("a.csv", "label,class,a\n1,1,2\n", "columns 'label' and 'class', which may have the same role"),
        ("a.csv", "label\n1\n", "a.csv has no column of numbers"),
        ("a.csv", "date,a\n1,2\n", "a time column 'date' but no id column"),
        ("a.csv", "id,t,a\n1,1,2\n1,2,2\n1,1,3\n", "a.csv, line 4: series 1 has time 1 twice"),
        ("a.csv", "id,t,a\n1,1,2\n1,,2\n", "a.csv, line 3, column 't': 'nan' is not a time"),
        ("a.csv", "id,t,a\n1,31/12/2020,2\n", "a.csv, line 2, column 't': '31/12/2020' is not a time"),
        ("a.csv", "id,t,a\n,1,2\n", "a.csv, line 2 has no id"),
        ("a.csv", "id,t,a\n1,1,2\n1,2,two\n", "a.csv, line 3, column 'a': 'two' is not a number"),
        ("a.csv", "id,t,label\n1,1,2\n", "a.csv has no column of numbers beside id and time"),
        ("a.csv", "id,t,a,class\n1,1,2,x\n2,1,2,y\n2,2,2,x\n", "a.csv, line 4, column 'class': the label changes"),
        ("a.csv", 'a,b\n1,"2\n', "a.csv cannot be read as a table .*row 1"),
        ("a_TRAIN.tsv", "1\t2\n1\tx\n", "a_TRAIN.tsv, line 2, column 2: 'x' is not a number"),
        ("a_TRAIN.tsv", "1\n2\n", "case 0 of .*a_TRAIN.tsv .* has no value"),
        ("a_TRAIN.txt", "This is how to train.\n", "a_TRAIN.txt, line 1, column 2: 'is' is not a number"),
        ("a.txt", "1 2 3\n", "a.txt is not a file of series"),
        ("a.csv", "1,2\n,\n3,4\n", "case 1 of .*a.csv .* has no value"),
        ("a.csv", "1,2\n3,inf\n", "case 1 of .*a.csv .* infinite"),
        ("a.ts", "1,2:1\n", "a.ts has no line @data"),
        ("a.ts", TS, "a.ts has no series"),
        ("a.ts", TS + "1,2:1\n1,x:1\n", "a.ts, line 8, cannot be read"),
        ("a.ts", TS + "1,2:1\n1:1\n", "a.ts cannot be read .*case 2"),
        ("a.arff", "1,2,1\n", "a.arff has no line @data"),
        ("a.arff", ARFF + "1,2,1\n1,x,1\n", "a.arff, line 8, cannot be read"),
        ("a.arff", ARFF + "1,2,1\n1,1\n", "a.arff, line 8 has channels of .1. values; all should have 2"),
        ("a.arff", ARFF + "'1,2\\n3',1\n", "a.arff, line 7 has channels of .2, 1. values"),
        ("a.csv", 'id,"a\nb"\n1,2\n3,4\n', "a.csv cannot be read as a table .*without line breaks"),
        ("a.csv", "1_1,1_2\n1,2\n1,1_2\n", "line 3, column '1_2': '1_2' is not a number"),
        ("a.npz", "no zip", "a.npz cannot be read as .npz"),
        ("a.npy", "no array", "a.npy cannot be read as .npy"),
        ("a.parquet", "a,b\n1,2\n", "a.parquet cannot be read as .parquet"),
        ("a.feather", "a,b\n1,2\n", "a.feather cannot be read as .feather"),
        ("a.zip", "no zip", "a.zip cannot be read as .zip"),
    ],
)
def test_bad_text_is_rejected_by_file_and_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        find_datasets(str(tmp_path / name))[0].read("train")


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("0,1,2\n5,3,2\n", (1, 1, 3), "0, 1, 2, …, is read as the names of columns; if it is a series, write 0.0"),
        (",0,1,2\n0,5,3,2\n", (1, 1, 3), ""),
        ("place,0.1,0.2,0.3\nRom,5,3,2\n", (1, 1, 3), "place, 0.1, 0.2, …, is read as the names of columns"),
        ("0.0,1,2\n5,3,2\n", (2, 1, 3), "0.0, 1, 2, …, has equal steps, and is read as a series"),
        ("1,0.5,1.5\n2,1.5,0.5\n1,2.5,0.1\n", (3, 1, 3), "the first column of {} has whole numbers that repeat"),
        ("0.5,1.5,1\n1.5,0.5,2\n2.5,0.1,1\n", (3, 1, 3), "the last column of {} has whole numbers that repeat"),
        ("state,t0,t1\n1,0.5,1.5\n2,1.5,0.5\n", (2, 1, 3), "column state of {} is read as values, as t0 is; if it is the label or the id"),
        (
            "state,t0,t1\non,0.5,1.5\noff,1.5,0.5\n",
            (2, 1, 2),
            "column state of {} has no numbers, and is ignored; if it is the label",
        ),
        ("label,x_0,y_0,x_1,y_1\na,1,3,2,4\nb,1,3,2,5\n", (2, 2, 2), "columns x_0 …, y_0 … of {} are read as 2 channels of 2 time points"),
        ("id,round,value\n1,1,5\n1,2,6\n", (2, 1, 2), "id 1 of {} is in several rows, each read as a series"),
        (
            "flow\n" + "5\n" * 30,
            (30, 1, 1),
            "{} is read as 30 series of length 1, one per row; if its columns are the series",
        ),
        ("1,2\n" + "5,6\n" * 30, (31, 1, 2), "{} is read as 31 series of length 2"),
        ("id,t,v,state\n1,1,5,7\n1,2,6,7\n2,1,5,8\n2,2,5,8\n", (2, 2, 2), "column state of {} is constant within every series"),
        ("id,t0,t1\n1,5,6\n2,5,7\n,,\n,,\n", (2, 1, 2), "{} ends in 2 lines of empty cells, which are left out"),
        ("id,t0,t1\n1,5,6\n2,5,7\n", (2, 1, 2), ""),
    ],
)
def test_what_may_be_meant_otherwise_is_logged(tmp_path, caplog, text, shape, message):
    caplog.set_level("INFO")
    (tmp_path / "a.csv").write_text(text)
    assert np.shape(read(tmp_path / "a.csv").series) == shape
    assert message.format(tmp_path / "a.csv") in caplog.text
    assert bool(caplog.text) == bool(message)


def test_ids_are_as_in_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("id,v,w\n007,1,2\n,1,3\n9007199254740993,1,4\n")
    assert read(tmp_path / "a.csv").ids.tolist() == ["007", "", "9007199254740993"]
    pd.DataFrame({"id": pd.array([7, None], "Int64"), "v": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").ids.tolist() == ["7", ""]


def test_an_empty_test_split_leaves_the_train_split(tmp_path):
    np.savez(tmp_path / "a.npz", X_train=np.ones((2, 3)), X_test=np.ones((0, 3)))
    for split, cases in (("TRAIN", "1,2:1\n"), ("TEST", "")):
        (tmp_path / f"b_{split}.ts").write_text(TS + cases)
    for files in find_datasets(str(tmp_path)):
        assert files.read("train").series
        with pytest.raises(InputError, match=r"has no series in its test split; add cases, or remove the split"):
            files.read("test")


def lists(path, *rows, **columns):
    pd.DataFrame({"v": list(rows)} | columns).to_parquet(path)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npz", lambda path: np.savez(path, values=[1]), "a.npz has no array X_train; its arrays are: values"),
        ("a.npz", lambda path: np.savez(path, X_train=np.zeros((2, 3)), y_train=[1]), r"series \(2, 3\) and labels \(1,\)"),
        ("a.npz", lambda path: np.savez(path, X_train=np.array([{}], object)), "without objects"),
        ("a.npz", lambda path: np.savez(path, X_train=np.array([["a"]])), "case 0 of .*a.npz .*has <U1 values"),
        ("a.npz", lambda path: np.savez(path, X_train=[[1, np.inf]]), "case 0 of .*a.npz .*infinite"),
        ("a.npy", lambda path: np.save(path, np.array([{}], object)), "without objects"),
        ("a.npy", lambda path: np.save(path, np.zeros(3)), r"a.npy: series \(3,\) should be"),
        ("a.npy", lambda path: np.save(path, np.zeros((0, 3))), "a.npy has no series"),
        ("a.parquet", lambda path: lists(path, [1.0], None), "a.parquet, row 2, column 'v' is not a list of numbers"),
        ("a.parquet", lambda path: lists(path, ["x"]), "a.parquet, row 1, column 'v' is not a list of numbers"),
        ("a.parquet", lambda path: lists(path, [1.0, 2.0], w=[[1.0]]), "row 1 has lists of .2, 1. numbers"),
        ("a.parquet", lambda path: lists(path, [1.0], name=["x"]), "beside the column 'name'"),
        ("a.parquet", lambda path: lists(path, [], [1.0]), "case 0 of .*a.parquet .* has no value"),
        ("a.parquet", lambda path: pd.DataFrame({"v": [1, 2], "w": ["3", "x"]}).to_parquet(path), "row 2, column 'w': 'x' is not a number"),
        ("a.parquet", lambda path: pd.DataFrame({"v": pd.to_datetime(["2024"])}).to_parquet(path), "row 1, column 'v': .* is not a number"),
    ],
)
def test_bad_content_is_rejected_by_file_and_place(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        find_datasets(str(tmp_path / name))[0].read("train")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".ts", ".arff"])
def test_text_that_is_not_utf8_is_rejected_by_line(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"@data\n1,2\n\xff\xfe,2\n")
    with pytest.raises(InputError, match=f"a{suffix}, line 3 is not UTF-8 text"):
        read(tmp_path / f"a{suffix}")


def write_any(path):
    """A large enough file of any binary format."""
    x = np.random.default_rng(0).normal(size=(50, 40)).round(2)
    frame = pd.DataFrame(x).rename(columns=str)
    {".npz": lambda: np.savez_compressed(path, X_train=x), ".npy": lambda: np.save(path, x)}.get(
        path.suffix, lambda: WRITERS[path.suffix](frame, path)
    )()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".parquet", ".feather"])
@pytest.mark.parametrize("kept", [0, 5, 0.3, 0.99])
def test_a_truncated_file_is_rejected(tmp_path, suffix, kept):
    path = tmp_path / f"a{suffix}"
    write_any(path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with pytest.raises(InputError, match=f"a{suffix} cannot be read"):
        read(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flipped_byte_in_an_npz_is_rejected(tmp_path, compressed):
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, X_train=np.random.default_rng(0).normal(size=(50, 40)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz cannot be read .*"):
        read(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.parquet", "a.feather", "lists.parquet", "lists.feather"])
def test_damage_anywhere_ends_in_a_sentence_or_in_numbers(tmp_path, name):
    """Not in a traceback, and not in offsets that point out of the memory of the process."""
    path = tmp_path / name
    if name.startswith("lists"):
        WRITERS[path.suffix](pd.DataFrame({"v": [[1.0, 2.0, 3.0], [4.0]] * 20, "label": ["a", "b"] * 20}), path)
    else:
        write_any(path)
    content, draw = path.read_bytes(), np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[draw.integers(len(content))] ^= int(draw.integers(1, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(InputError), np.errstate(invalid="ignore"):
            find_datasets(str(path))[0].read("train")


@pytest.mark.parametrize("member", ["../out.csv", "/etc/out.csv", "a/../../out.csv", "C:\\out.csv"])
def test_an_archive_is_rejected_and_an_unsafe_one_by_its_member(tmp_path, member):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.csv", "1,2\n")
    with pytest.raises(InputError, match=r"a\.zip is an archive; unpack it"):
        find_datasets(str(tmp_path / "a.zip"))
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as file:
        file.writestr(member, "1,2\n")
    with pytest.raises(InputError, match=rf"a\.zip is unsafe: its member {re.escape(repr(member))}"):
        find_datasets(str(tmp_path / "a.zip"))


def test_every_format_has_a_reader():
    assert sorted(READERS) == [".arff", ".csv", ".feather", ".npy", ".npz", ".parquet", ".ts", ".tsv", ".txt"]
