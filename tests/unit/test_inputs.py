"""One table of input forms: every entry point gives what the NumPy form gives, or rejects the form in one sentence."""

import decimal
import logging
from types import SimpleNamespace

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from nutime_jax.config import EvaluationConfig
from nutime_jax.data.columns import Columns
from nutime_jax.data.datasets import find_datasets
from nutime_jax.data.inputs import read_series
from nutime_jax.data.tables import regular_steps
from nutime_jax.errors import InputError, InputTypeError
from nutime_jax.estimators import NuTimeAnomalyDetector, NuTimeClassifier, NuTimeClusterer, NuTimeTransformer
from nutime_jax.finetuning.channels import ChannelMap
from nutime_jax.finetuning.classifier import FineTunedClassifier
from nutime_jax.finetuning.probe import ProbeClassifier
from tests.stub import make_stub

pl = pytest.importorskip("polars")

CASES, TIME = 6, 30
ENCODER = make_stub()


def whole_numbers(channels):
    """Return series (cases, channels, time) that every real dtype represents."""
    return np.random.default_rng(channels).integers(0, 100, (CASES, channels, TIME)).astype(np.float64)


ONE, TWO = whole_numbers(1), whole_numbers(2)
TABLE = ONE[:, 0]
HOLES = ONE.copy()
HOLES[1, 0, 5:8] = np.nan
LABELS = ["a", "b"] * 3
WIDE = pd.DataFrame(TABLE).rename(columns="t{}".format)
DAYS = pd.date_range("2024-01-01", periods=TIME, freq="h")


def long_frame(series, times=range(TIME), **columns):
    """Return one row per time step, channels c0, c1, …"""
    frames = []
    for i, case in enumerate(series):
        frames.append(pd.DataFrame({"id": f"s{i}", "time": times, **{f"c{j}": channel for j, channel in enumerate(case)}}))
    return pd.concat(frames, ignore_index=True).assign(**columns)


LONG = long_frame(ONE)
LONG2 = long_frame(TWO)
GAPS = LONG.drop(index=range(TIME + 5, TIME + 8))
LISTS = pd.DataFrame({"x": list(TWO[:, 0]), "y": list(TWO[:, 1])})
CHANNEL_COLUMNS = pd.DataFrame(TWO.reshape(CASES, -1), columns=pd.MultiIndex.from_product([["x", "y"], range(TIME)]))


class Labelled:
    """As xarray.DataArray, which is not installed with the tests."""

    def __init__(self, values, dims):
        self.values, self.dims = values, dims

    def transpose(self, *dims):
        return Labelled(self.values.transpose([self.dims.index(dim) for dim in dims]), dims)


class Interchange:
    """A table of another library, which converts to pandas."""

    schema = ()

    def __init__(self, frame):
        self.frame = frame

    def to_pandas(self):
        return self.frame

    def __array__(self, *_):
        raise AssertionError("read as an array")


def objects(rows):
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


ACCEPTED = {
    "array": (ONE, ONE),
    "table": (TABLE, ONE),
    "channels": (TWO, TWO),
    "fortran order": (np.asfortranarray(TWO), TWO),
    "read only": (np.broadcast_to(ONE, ONE.shape), ONE),
    **{
        f"dtype {np.dtype(dtype)}": (ONE.astype(dtype), ONE)
        for dtype in (np.float16, np.float32, np.longdouble, np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, ml_dtypes.bfloat16)
    },
    "jax": (jnp.asarray(ONE), ONE),
    "masked": (np.ma.masked_invalid(HOLES), HOLES),
    "masked integers": (np.ma.array(TABLE.astype(int), mask=np.isnan(HOLES[:, 0])), HOLES),
    "object array": (ONE.astype(object), ONE),
    "objects with None": (np.where(np.isnan(HOLES), None, HOLES), HOLES),
    "objects with pandas.NA": (np.where(np.isnan(HOLES), pd.NA, HOLES), HOLES),
    "list of arrays": (list(ONE), ONE),
    "tuple of arrays": (tuple(TABLE), ONE),
    "object array of arrays": (objects(list(TABLE)), ONE),
    "dictionary view": (dict(enumerate(TABLE)).values(), ONE),
    "nested lists": (TABLE.tolist(), ONE),
    "nested lists of channels": (TWO.tolist(), TWO),
    "nested lists with None": (np.where(np.isnan(HOLES), None, HOLES).tolist(), HOLES),
    "list of Series": ([pd.Series(row) for row in TABLE], ONE),
    "list of nullable Series": ([pd.Series(row, dtype="Int64") for row in TABLE], ONE),
    "list of polars Series": ([pl.Series(row) for row in TABLE], ONE),
    "list of pyarrow arrays": ([pa.array(row) for row in TABLE], ONE),
    "list of jax arrays": ([jnp.asarray(row) for row in TWO], TWO),
    "wide frame": (WIDE, ONE),
    "wide frame, integer names": (pd.DataFrame(TABLE), ONE),
    "wide frame, labelled": (WIDE.assign(label=LABELS), ONE),
    "wide frame, ids": (WIDE.assign(id=range(CASES)), ONE),
    "wide frame, index of another name": (WIDE.rename_axis("case"), ONE),
    "wide frame, index of ids": (WIDE.rename_axis("id"), ONE),
    "wide frame, nullable": (WIDE.astype("Int64"), ONE),
    "wide frame, pyarrow types": (WIDE.convert_dtypes(dtype_backend="pyarrow"), ONE),
    "wide frame, decimals": (WIDE.map(lambda value: decimal.Decimal(int(value))), ONE),
    "what pivot returns": (LONG.assign(time=LONG.time + 100).pivot(index="id", columns="time", values="c0").rename_axis("who"), ONE),
    "what pivot returns for channels": (LONG2.pivot(index="id", columns="time", values=["c0", "c1"]), TWO),
    "columns (channel, time)": (CHANNEL_COLUMNS, TWO),
    "columns (time, channel)": (CHANNEL_COLUMNS.swaplevel(axis=1).sort_index(axis=1).rename_axis(columns=["time", None]), TWO),
    "long frame": (LONG, ONE),
    "long frame, shuffled": (pd.concat([LONG[::2], LONG[1::2]]), ONE),
    "long frame, channels": (LONG2, TWO),
    "long frame, labelled": (LONG.assign(label=LONG.id), ONE),
    "long frame, text columns": (LONG.assign(city="Bonn"), ONE),
    "long frame, index (id, time)": (LONG2.set_index(["id", "time"]), TWO),
    "long frame, index (instances, timepoints)": (LONG2.set_index(["id", "time"]).rename_axis(["instances", "timepoints"]), TWO),
    "long frame, unnamed index": (LONG2.set_index(["id", "time"]).rename_axis([None, None]), TWO),
    "long frame, index (time, id)": (LONG2.set_index(["time", "id"]), TWO),
    "long frame, dates": (long_frame(TWO, DAYS), TWO),
    "long frame, periods": (long_frame(TWO, DAYS.to_period("h")), TWO),
    "long frame, durations": (long_frame(TWO, DAYS - DAYS[0]), TWO),
    "long frame, missing rows": (GAPS, HOLES),
    "long frame, missing dates": (long_frame(ONE, DAYS).drop(index=range(TIME + 5, TIME + 8)), HOLES),
    "lists called x and y": (LISTS, TWO),
    "lists of GluonTS": (pd.DataFrame({"start": ["2024"] * CASES, "target": list(TABLE), "item_id": range(CASES)}), ONE),
    "lists of Chronos": (pd.DataFrame({"id": range(CASES), "timestamp": [list(DAYS)] * CASES, "target": list(TABLE)}), ONE),
    "nested frame of sktime": (pd.DataFrame({"dim_0": [pd.Series(row) for row in TABLE]}), ONE),
    "polars, wide": (pl.DataFrame(TABLE.tolist(), orient="row"), ONE),
    "polars, labelled": (pl.from_pandas(WIDE.assign(label=LABELS)), ONE),
    "polars, ids": (pl.from_pandas(WIDE.assign(id=LABELS)), ONE),
    "polars, long": (pl.from_pandas(LONG2), TWO),
    "polars, lists": (pl.DataFrame({"x": TWO[:, 0].tolist(), "y": TWO[:, 1].tolist()}), TWO),
    "polars, lazy": (pl.from_pandas(WIDE.assign(label=LABELS)).lazy(), ONE),
    "pyarrow, labelled": (pa.Table.from_pandas(WIDE.assign(label=LABELS)), ONE),
    "pyarrow, long": (pa.Table.from_pandas(LONG2), TWO),
    "pyarrow, batch": (pa.Table.from_pandas(LONG2).combine_chunks().to_batches()[0], TWO),
    "another library": (Interchange(WIDE.assign(label=LABELS)), ONE),
    "xarray": (Labelled(TWO, ("case", "channel", "time")), TWO),
    "xarray, other order": (Labelled(TWO.transpose(2, 0, 1), ("time", "case", "channel")), TWO),
    "xarray, one case": (Labelled(TWO[0].T, ("time", "channel")), TWO[:1]),
}
REJECTED = {
    "None": (None, "X is None"),
    "text": ("series.csv", "'series.csv' does not exist; pass the path of a"),
    "dictionary": ({"a": TABLE}, "X is of type dict"),
    "set": ({1, 2}, "X is of type set"),
    "class": (np.ndarray, "X is of type type"),
    "number": (np.float64(3), r"X has shape \(\)"),
    "one series": (TABLE[0], r"X has shape \(30,\)"),
    "one list": ([1.0, 2.0], "X is one series of 2 time points"),
    "four axes": (ONE[None], "X has shape"),
    "sparse": (sparse.csr_matrix(TABLE), "X is sparse"),
    "complex": (ONE + 1j, "Complex data not supported"),
    "complex frame": (pd.DataFrame(TABLE * 1j), "Complex data not supported"),
    "texts": (np.full((6, 3), "a"), "X has <U1 values"),
    "objects": (np.full((6, 3), {}, object), "X has objects that are not numbers"),
    "dates": (np.full((6, 3), np.datetime64("2024-01-01")), "X has datetime64"),
    "records": (np.zeros((2, 2), [("a", float)]), "convert them to real numbers"),
    "infinite": (np.where(ONE[2, 0, 3] == ONE, np.inf, ONE), "infinite"),
    "missing case": (np.where(np.arange(6)[:, None, None] == 2, np.nan, ONE), "case 2 has no value"),
    "no case": (ONE[:0], "X has no series"),
    "no time point": (ONE[:, :, :0], "X has 0 feature"),
    "empty list": ([], "X has no series"),
    "unequal channels": ([ONE[0], TWO[0]], r"cases have \[1, 2\] channels"),
    "list of frames": ([pd.DataFrame(case.T) for case in TWO], r"case 0 is of type DataFrame; pass case_0.to_numpy\(\).T"),
    "list of polars frames": ([pl.DataFrame(case.T) for case in TWO], r"case 0 is of type DataFrame; pass"),
    "list of texts": (["abc", "def"], "case 0 is of type str"),
    "list with None": ([TABLE[0], None], "case 1 is None"),
    "rows are times": (pd.DataFrame(TABLE.T, index=DAYS), r"X has times as rows; pass X.to_numpy\(\).T\[None\]"),
    "rows are periods": (pd.DataFrame(TABLE.T, index=DAYS.to_period("h")), "X has times as rows"),
    "time without id": (pd.DataFrame({"time": range(3), "a": 1.0}), "a time column 'time' but no id column"),
    "two ids": (LONG.assign(item_id=1), "has columns 'id' and 'item_id'"),
    "time twice": (LONG.assign(time=0), "has time 0 twice"),
    "texts in a frame": (pd.DataFrame({"a": ["x"], "b": [1]}), "row 1, column 'a': 'x' is not a number"),
    "three levels": (LONG.set_index(["id", "time", "c0"]), "an index of 3 levels"),
    "unequal times of channels": (CHANNEL_COLUMNS.iloc[:, :-1], "channels of unequal times"),
    "lists of unequal length": (pd.DataFrame({"a": [[1.0, 2.0]], "b": [[3.0]]}), r"lists of \[2, 1\] numbers"),
    "xarray of unknown dimensions": (Labelled(TWO, ("a", "b", "c")), r"dimensions \(a, b, c\)"),
}


@pytest.fixture(scope="module")
def entry_points():
    """Return functions of X by name and number of channels."""
    points = {}
    for channels, X in ((1, ONE), (2, TWO)):
        classifier = FineTunedClassifier(
            config=SimpleNamespace(length=64, evaluation=EvaluationConfig()),
            settings=SimpleNamespace(num_window_offsets=1),
            classes_=np.array(LABELS[:2]),
            channels=ChannelMap(channels, tuple(range(channels))),
            members={},
            shared={},
            training=None,
        )
        estimators = {
            "transformer": NuTimeTransformer(ENCODER).fit(X).transform,
            "classifier": NuTimeClassifier(ENCODER).fit(X, LABELS).predict_proba,
            "clusterer": NuTimeClusterer(ENCODER, n_clusters=2, random_state=0).fit(X).predict,
            "detector": NuTimeAnomalyDetector(ENCODER).fit(X).score_samples,
            "fine-tuned classifier": classifier.predict_proba,
            "embed": lambda series: ENCODER.embed(series, channels="concat"),
            "probe classifier": ProbeClassifier(
                encoder=ENCODER,
                options={},
                classes_=np.array(LABELS[:2]),
                num_channels=channels,
                mean=np.zeros(ENCODER.embed(X).shape[1]),
                scale=np.ones(ENCODER.embed(X).shape[1]),
                weight=np.random.default_rng(0).normal(size=(ENCODER.embed(X).shape[1], 2)),
                bias=np.zeros(2),
            ).predict_proba,
        }
        points |= {(name, channels): function for name, function in estimators.items()}
    return points


NAMES = ("embed", "transformer", "classifier", "clusterer", "detector", "fine-tuned classifier", "probe classifier")


@pytest.fixture(autouse=True)
def fine_tuned_stub(monkeypatch):
    """Replace the network of fine-tuned classifiers by the sum of each case."""
    module = "nutime_jax.finetuning.classifier"
    monkeypatch.setattr(f"{module}.FineTunedClassifier.network", None)
    monkeypatch.setattr(f"{module}.FineTunedClassifier._padded_members", lambda self: None)
    monkeypatch.setattr(f"{module}.pack_cases", lambda chunk, labels: [case.sum() for case in chunk])
    monkeypatch.setattr(f"{module}.predict_cases", lambda members, shared, sums, *_, **__: np.stack([sums, sums], 1))


@pytest.fixture(scope="module")
def of_array(entry_points):
    """Return the result of an entry point for an array: forms of one array share it."""
    results = {}

    def compute(name, array):
        key = name, array.shape, array.tobytes()
        if key not in results:
            results[key] = entry_points[name, array.shape[1]](array)
        return results[key]

    return compute


@pytest.mark.parametrize("form", ACCEPTED)
def test_every_form_gives_what_the_array_gives(entry_points, of_array, form):
    X, expected = ACCEPTED[form]
    for name in NAMES:
        np.testing.assert_array_equal(entry_points[name, expected.shape[1]](X), of_array(name, expected), err_msg=name)


@pytest.mark.parametrize("form", REJECTED)
def test_other_forms_are_rejected_in_one_sentence(entry_points, form):
    X, message = REJECTED[form]
    for name in NAMES:
        with pytest.raises(InputError, match=message) as caught:
            entry_points[name, 1](X)
        text = str(caught.value)
        assert "\n" not in text, name
        assert ";" in text, name
        assert len(text) < 400, name


FRAMES = [form for form, (X, _) in ACCEPTED.items() if isinstance(X, pd.DataFrame) and X.columns.nlevels == X.index.nlevels == 1]
NOT_TEXT = [form for form in FRAMES if "lists" in form or "nested" in form]
NOT_TEXT += ["long frame, durations", "what pivot returns"]  # whose CSV has neither dates nor names of columns


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        *((".npz", form) for form in ("array", "channels")),
        *((".parquet", form) for form in FRAMES if "nested" not in form),
        *((suffix, form) for suffix in (".csv", ".csv.gz") for form in FRAMES if form not in NOT_TEXT),
    ],
)
def test_files_give_what_the_array_gives(of_array, tmp_path, form, suffix):
    X, expected = ACCEPTED[form]
    path = tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, X=X)
    elif suffix == ".parquet":
        X.rename(columns=str).reset_index(drop=X.index.name != "id").to_parquet(path, index=False)
    else:
        X.to_csv(path, index=X.index.name == "id")
    cases = find_datasets(str(path))[0].read("train")
    np.testing.assert_array_equal(ENCODER.embed(cases.series, channels="concat"), of_array("embed", expected))


def test_labels_and_ids_come_with_the_series():
    """Folds of a long frame: the series, labels and ids that scikit-learn takes one by one."""
    X, y, ids, num_columns = read_series(LONG.assign(label=LONG.id.map(dict(zip(LONG.id.unique(), LABELS, strict=True)))))
    assert (y.tolist(), ids.tolist(), num_columns) == (LABELS, [f"s{i}" for i in range(CASES)], None)
    pipeline = make_pipeline(NuTimeTransformer(ENCODER), LogisticRegression())
    assert len(cross_val_score(pipeline, X, y, cv=2)) == 2
    assert len(cross_val_score(NuTimeClassifier(ENCODER), X, y, cv=2)) == 2


def test_columns_can_be_named():
    frame = LONG2.rename(columns={"id": "pump", "time": "step"}).assign(failure=LONG2.id, c9=1.0)
    named = Columns(id="pump", time="step", label="failure", channels=("c1",))
    series, labels, ids, _ = read_series(frame, columns=named)
    np.testing.assert_array_equal(np.stack(series), TWO[:, 1:])
    assert labels.tolist() == ids.tolist() == [f"s{i}" for i in range(CASES)]
    with pytest.raises(InputError, match="X has no column 'pumps', did you mean 'pump'\\?; choose one of pump"):
        read_series(frame, columns=Columns(id="pumps"))
    with pytest.raises(InputTypeError, match=r"columns is 'pump'; pass Columns, as in Columns\(label='pump'\)"):
        read_series(frame, columns="pump")
    with pytest.raises(InputError, match="only tables have columns"):
        read_series(ONE, columns=named)


def test_columns_of_files_can_be_named(tmp_path):
    frame = LONG.rename(columns={"id": "pump", "time": "step"}).assign(failure=LONG.id)
    for suffix, write in ((".csv", pd.DataFrame.to_csv), (".parquet", pd.DataFrame.to_parquet)):
        write(frame, tmp_path / f"a{suffix}", index=False)
        (files,) = find_datasets(str(tmp_path / f"a{suffix}"), columns=Columns(id="pump", time="step", label="failure"))
        cases = files.read_labelled("train")
        np.testing.assert_array_equal(np.stack(cases.series), ONE)
        assert cases.labels.tolist() == [f"s{i}" for i in range(CASES)]
        assert cases.roles == {"pump": "id", "step": "time", "c0": "channel", "failure": "label"}


def test_a_label_of_another_name_is_warned_about(caplog):
    read_series(LONG.assign(failure=LONG.id.str[1:].astype(int)))
    assert "column failure of X is constant within every series; if it is the label, name it" in caplog.text


def test_swapped_axes_are_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        read_series(np.random.default_rng(0).normal(size=(2, 512, 3)))
    assert "cases have 512 channels of 3 time points" in caplog.text


@pytest.mark.parametrize(
    ("times", "index"),
    [
        ([0, 1, 2, 4], [0, 1, 2, 4]),
        ([0.0, 0.1, 0.2, 0.4], [0, 1, 2, 4]),
        ([5], [0]),
        ([3, 9], [0, 1]),
        ([0, 1, 5, 11], None),
        ([0, 1, 2, 2.5], None),
        ([0, 1, 2, 3, 10_000], None),
        (pd.to_datetime(["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30"]).to_numpy(), None),
        (pd.bdate_range("2024-01-01", periods=8).delete(3).to_numpy(), [0, 1, 2, 4, 5, 6, 7]),
    ],
)
def test_regular_steps(times, index):
    found = regular_steps(np.asarray(times))
    assert (None if found is None else found.tolist()) == index


def test_unequal_steps_follow_one_another_and_are_counted(tmp_path):
    frame = long_frame(ONE, np.cumsum(np.arange(TIME)))
    frame.to_csv(tmp_path / "a.csv", index=False)
    cases = find_datasets(str(tmp_path / "a.csv"))[0].read("train")
    np.testing.assert_array_equal(np.stack(cases.series), ONE)
    assert cases.unequal_steps == CASES
