import json
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from nutime_jax.core.resample import resize_on_host
from nutime_jax.data.datasets import Cases
from nutime_jax.errors import InputError
from nutime_jax.report.nme import plot_nme
from nutime_jax.report.plots import plot_embedding, plot_training, plot_views, read_metrics, spread_over_classes
from nutime_jax.report.style import COLOURS, save_figure
from tests.encoders import smoke_encoder


@pytest.fixture(scope="module")
def encoder():
    return smoke_encoder()


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32) * np.float32([1, 1, 1, 1, 1, 1e6])


def test_embedding_shows_every_case_once(features):
    labels, filled = ["a", "b", "10"] * 10, np.arange(30) < 10
    (axes,) = plot_embedding(features, labels, filled=filled, title="sets of $").axes
    points = np.concatenate([one.get_offsets() for one in axes.collections])
    wanted = PCA(2, svd_solver="full").fit_transform(StandardScaler().fit_transform(features.astype(np.float64)))
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(wanted, axis=0), atol=1e-9)
    hollow = [one for one in axes.collections if not len(one.get_facecolors())]
    assert sum(len(one.get_offsets()) for one in hollow) == 20
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()] == ["10", "a", "b"]
    assert "of the variance" in axes.get_xlabel()


def test_many_classes_are_distinguished(features):
    figure = plot_embedding(features, [str(i % 20) for i in range(30)])
    looks = {(handle.get_color(), handle.get_marker()) for handle in figure.legends[0].legend_handles}
    assert len(looks) == 20
    assert len(set(COLOURS)) == len(COLOURS)


def test_without_labels_there_is_no_legend(features):
    assert plot_embedding(features, None).legends == []


def test_tsne_is_deterministic(features):
    first, second = (plot_embedding(features, None, method="tsne").axes[0].collections[0].get_offsets() for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_features_that_cannot_be_plotted_are_rejected(features):
    with pytest.raises(InputError, match="method 'umap' is unknown: choose one of pca, tsne"):
        plot_embedding(features, None, method="umap")
    with pytest.raises(InputError, match="2 cases are too few"):
        plot_embedding(features[:2], None)


def test_nme_spans_twelve_orders_of_magnitude_and_both_signs(encoder):
    figure = plot_nme(encoder)
    weights, embedded, cosines = (np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.get_title(loc="left"))
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(weights, weights[:, ::-1], rtol=1e-5)  # weights do not depend on the sign
    assert embedded.shape == (encoder.config.model.scale_dim, weights.shape[1])
    assert cosines.shape == (weights.shape[1],) * 2
    np.testing.assert_allclose(np.diag(cosines), 1, rtol=1e-5)
    below = figure.axes[1]
    assert [text.get_text() for text in below.get_xticklabels()][3:] == ["0", "10⁻²", "10²", "10⁶"]
    peaks = dict(zip((text.get_text() for text in below.get_xticklabels()), below.get_xticks(), strict=True))
    assert weights[:, int(peaks["10²"])].argmax() == 6  # of 1e-4 … 1e4
    assert weights[:, int(peaks["−10⁻²"])].argmax() == 2


def test_an_encoder_without_scalars_has_no_nme():
    bare = smoke_encoder("model.window_stats=none")
    with pytest.raises(InputError, match="it has no NME to plot"):
        plot_nme(bare)


def test_views_are_the_marked_segments():
    rng = np.random.default_rng(0)
    series = [np.float32(np.cumsum(rng.normal(size=n))) for n in (50, 80)]
    figure = plot_views(series, length=64, crop=(0.5, 0.8), seed=3)
    for values, left, right in zip(series, figure.axes[::2], figure.axes[1::2], strict=True):
        for patch, line in zip(left.patches, right.lines, strict=True):
            start, size = int(patch.get_x()), int(patch.get_width()) + 1
            assert 0.5 <= size / len(values) <= 0.8 + 1 / len(values)
            wanted = resize_on_host(values[None, start : start + size], 64)[0]
            np.testing.assert_allclose(line.get_ydata(), wanted, atol=1e-5)
    with pytest.raises(InputError, match="list of series is empty"):
        plot_views([], length=64, crop=(0.5, 0.8))


def test_views_of_a_small_signal_on_a_large_offset():
    one = 1e9 + np.sin(np.arange(60.0))
    (left, right) = plot_views([one], length=32, crop=(1.0, 1.0)).axes
    np.testing.assert_allclose(left.lines[0].get_ydata(), one, atol=1e-5)
    assert np.ptp(right.lines[0].get_ydata()) == pytest.approx(2, abs=0.1)


def test_cases_of_all_classes_come_first():
    cases = Cases([np.zeros((1, 3))] * 5, np.array(["b", "b", "a", "a", "c"]))
    assert spread_over_classes(cases, 4) == [2, 0, 4, 3]
    assert spread_over_classes(Cases(cases.series, None), 2) == [0, 1]


@pytest.fixture
def workdirs(tmp_path):
    for run, shift in (("one", 0), ("two", 0.1)):
        (tmp_path / run).mkdir()
        lines = [{"step": k, "loss": 1 / k + shift, "projection_std": 0.9, "grad_norm": 0.0} for k in range(1, 6)] + [
            {"step": 5, "probe_accuracy": 0.75}
        ]
        (tmp_path / run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "lo')
    return [tmp_path / "one", tmp_path / "two"]


def test_training_overlays_runs(workdirs):
    figure = plot_training(workdirs)
    loss, spread, probe, gradient = figure.axes
    assert [line.get_label() for line in loss.lines] == ["one", "two"]
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [1 / k + 0.1 for k in range(1, 6)])
    assert loss.get_yscale() == "log"
    assert gradient.get_yscale() == "linear"  # zeros have no logarithm
    assert spread.get_ylim()[0] == 0
    assert probe.lines[0].get_ydata() == [75]
    assert len(figure.legends) == 1


def test_a_run_without_probe_has_no_panel_for_it(workdirs):
    path = workdirs[0] / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:5]))
    assert len(plot_training(workdirs[:1]).axes) == 3


def test_unusable_workdirs_are_rejected(workdirs, tmp_path):
    with pytest.raises(InputError, match=r"has no metrics\.jsonl"):
        plot_training([tmp_path])
    with pytest.raises(InputError, match="is given twice"):
        plot_training([workdirs[0], workdirs[0]])
    (workdirs[0] / "metrics.jsonl").write_text('[]\n{"step": 1}\n{"step": 2, "loss": "much"}\n')
    with pytest.raises(InputError, match="contains no metrics of training"):
        read_metrics(workdirs[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.svg", "x.PNG"])
def test_the_same_figure_is_the_same_file(workdirs, tmp_path, name):
    contents = []
    for _ in range(2):
        save_figure(plot_training(workdirs), tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert b"Date" not in contents[0]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


def test_unwritable_figures_are_rejected(workdirs, tmp_path):
    figure = plot_training(workdirs)
    with pytest.raises(InputError, match=r"x\.pdf is not the name of a figure: end it in \.png or \.svg"):
        save_figure(figure, tmp_path / "x.pdf")
    with pytest.raises(InputError, match="does not exist"):
        save_figure(figure, tmp_path / "no" / "x.png")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match="Cannot write"):
        save_figure(figure, tmp_path / "x.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two", "x.png"]


def test_without_matplotlib_the_error_names_the_extra(workdirs, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"matplotlib is not installed; pip install 'nutime_jax\[report\]'"):
        plot_training(workdirs)
