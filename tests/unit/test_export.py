import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from nutime_jax.bundle import load_bundle, save_bundle
from nutime_jax.config import load_config, override, update
from nutime_jax.core.resample import resize_batch
from nutime_jax.embedding import _encode
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.export import LOADING, export_encoder, export_program, load_exported, read_card
from nutime_jax.loading import load_encoder, untrained_encoder
from nutime_jax.models.microbatches import FULL_BATCH
from nutime_jax.models.pooling import PooledOutput
from tests.encoders import smoke_encoder

TOLERANCE = 1e-6  # of features of order one, in float32


@pytest.fixture(scope="module")
def encoder():
    return smoke_encoder("data.max_length=150")


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    return export_encoder(encoder, tmp_path_factory.mktemp("exported") / "encoder", card="Drawn from a seed.\n")


@pytest.fixture(scope="module")
def exported(folder):
    return load_exported(folder)


@pytest.fixture(scope="module")
def batch():
    """Series of several lengths and scales, what follows them being noise, with lengths and offsets."""
    rng = np.random.default_rng(0)
    series = rng.normal(size=(6, 128)).cumsum(1) * 10.0 ** np.arange(-3, 3)[:, None]
    series[4] = 3
    lengths, offsets = np.array([128, 90, 64, 5, 128, 1], np.int32), np.array([0, 0, 0, 0, 0, 1e6], np.float32)
    series[np.arange(128) >= lengths[:, None]] = np.nan
    return series.astype(np.float32), lengths, offsets


@pytest.fixture(scope="module")
def features(encoder, batch):
    """By the programs of `Encoder.embed`."""
    series, lengths, offsets = batch
    variables = jax.tree.map(jnp.asarray, encoder.variables)
    (size,) = encoder.input_lengths
    views = resize_batch([values[:length] for values, length in zip(series, lengths, strict=True)], size, rows=len(series))
    with jax.default_matmul_precision("highest"):
        return np.asarray(
            _encode(variables, views, offsets, output=PooledOutput(None, "cls+mean"), network=encoder.network, microbatches=FULL_BATCH)
        )


def test_a_program_gives_the_features_of_the_encoder(exported, batch, features):
    assert features.shape == (6, 32)
    np.testing.assert_allclose(exported.program(*batch), features, rtol=0, atol=TOLERANCE)


def test_a_program_needs_only_jax(folder, batch, features, tmp_path):
    np.savez(tmp_path / "batch.npz", *batch)
    barred = ("nutime_jax", "flax", "ml_collections", "safetensors", "optax", "orbax")
    code = "\n".join(
        [
            f"import sys; sys.modules.update(dict.fromkeys({barred!r}))",
            f"import numpy as np; series, lengths, offsets = np.load({str(tmp_path / 'batch.npz')!r}).values()",
            LOADING.replace("np.zeros(len(series), np.float32)", "offsets"),
            f"np.save({str(tmp_path / 'features.npy')!r}, features)",
            f"assert not [name for name in {barred!r} if sys.modules[name]]",
        ]
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env=environment)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), features, rtol=0, atol=TOLERANCE)


def test_embedding_matches_the_encoder(encoder, exported):
    rng = np.random.default_rng(1)
    series = [rng.normal(size=n).cumsum() * 10.0**k for n, k in ((30, -3), (70, 0), (64, 5), (301, 1))]  # the last in three pieces
    series[1][[0, 20]] = np.nan
    series.append(101_325 + 0.01 * np.sin(np.arange(80.0)))
    expected = encoder.embed([one[None] for one in series])
    np.testing.assert_allclose(exported.embed(series, batch_size=4), expected, rtol=0, atol=TOLERANCE)
    for wrong, message in (
        ([], "list of series is empty"),
        ([np.ones((2, 9))], "case 0 has 2 channels"),
        ([np.full(3, np.nan)], "no value"),
    ):
        with pytest.raises(InputError, match=message):
            exported.embed(wrong)


@pytest.mark.slow
def test_an_encoder_with_several_input_lengths_is_one_program(encoder, tmp_path):
    encoder = encoder.with_options(input_lengths=(64, 32), num_window_offsets=3)
    folder = export_encoder(encoder, tmp_path / "several")
    series = np.random.default_rng(1).normal(size=(3, 70)).cumsum(1)
    found = load_exported(folder).embed(series)
    # As far as `embed` agrees with itself; series are resized in another program.
    np.testing.assert_allclose(found, encoder.embed(series), rtol=0, atol=1e-5)
    assert found.shape == (3, 64)
    card = " ".join((folder / "card.md").read_text().split())
    assert "resized to 64 and to 32 points" in card
    assert "averaged over 3 window offsets" in card


@pytest.mark.slow
def test_a_program_resizes_series_to_their_buckets(encoder, tmp_path):
    changes = "evaluation.length_buckets=32,64", "evaluation.input_lengths=0", "evaluation.pooling=all_layers+stem"
    encoder = Encoder(override(encoder.config, *changes), encoder.variables)
    loaded = load_exported(export_encoder(encoder, tmp_path / "buckets"))
    series = [np.random.default_rng(length).normal(size=length).cumsum() for length in (70, 20, 64, 32, 33)]
    np.testing.assert_allclose(loaded.embed(series), encoder.embed(series), rtol=0, atol=1e-5)
    assert np.isnan(loaded.program(np.ones((2, 64), np.float32), np.int32([20, 64]), np.zeros(2, np.float32))).all()
    assert "All rows of a call need the same bucket" in (tmp_path / "buckets" / "card.md").read_text()


@pytest.mark.slow
def test_differences_are_a_part_of_the_program(encoder, tmp_path):
    encoder = encoder.with_options(input_lengths=(64, 32), num_window_offsets=2, diff_orders=(0, 1))
    folder = export_encoder(encoder, tmp_path / "differences")
    draw = np.random.default_rng(1)
    series = [draw.normal(size=n).cumsum() for n in (70, 3, 2, 1, 64)] + [1e8 + draw.normal(size=70).cumsum()]
    np.testing.assert_allclose(load_exported(folder).embed(series), encoder.embed(series), rtol=0, atol=1e-5)
    words = "Series and their first differences are resized to 64 and to 32 points"
    assert words in (folder / "card.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"pos_embedding": "rotary", "stride": 8, "extra_window_sizes": (8, 32)},
        {"pos_embedding": "learned", "stride": 4, "backbone": "resnet"},
        {"pos_embedding": "none"},
    ],
    ids=str,
)
def test_all_tokens_and_blocks_can_be_exported(model, tmp_path):
    config = update(load_config("smoke", ["model.depth=1", "evaluation.num_window_offsets=2"]), {"model": model})
    encoder = untrained_encoder(config)
    folder = export_encoder(encoder, tmp_path / "exported")
    series = np.random.default_rng(1).normal(size=(3, 70)).cumsum(1)
    expected = encoder.embed(series)
    np.testing.assert_allclose(load_exported(folder).embed(series), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(load_encoder(folder).embed(series), expected)


@pytest.mark.parametrize("length", [0, 129, -1])
def test_an_impossible_length_makes_the_result_nan(exported, batch, length):
    series, lengths, offsets = batch
    assert np.isnan(exported.program(series, np.where(np.arange(6) == 2, length, lengths).astype(np.int32), offsets)).all()


@pytest.mark.slow
def test_a_program_accepts_any_size_up_to_its_limit(encoder):
    program = export_program(encoder, layer=0, pooling="mean")
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(one) for one in program.in_avals] == ["float32[b,t]", "int32[b]", "float32[b]"]
    assert [str(one) for one in program.out_avals] == ["float32[b,16]"]
    shapes = ((1, 2**24), np.float32), ((1,), np.int32), ((1,), np.float32)
    with pytest.raises(ValueError, match="t <= 16777215"):
        jax.eval_shape(program.call, *(jax.ShapeDtypeStruct(*one) for one in shapes))


def test_the_folder_is_an_encoder_with_a_model_card(encoder, folder, tmp_path):
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "config.json", "program.jax", "weights.safetensors"]
    jax.tree.map(np.testing.assert_array_equal, load_encoder(folder).variables, encoder.variables)
    about = json.loads((folder / "config.json").read_text())["export"]
    assert about["jax"] == jax.__version__
    assert (about["lengths"], about["max_length"], about["features"], about["readout"]) == ([64], 150, 32, "cls+mean")
    card = (folder / "card.md").read_text()
    assert f"```python\n{LOADING}\n```" in card
    assert "more than 150 points" in card
    assert read_card(folder) == "Drawn from a seed."
    again = export_encoder(load_encoder(folder), tmp_path / "again", card=read_card(folder))
    assert read_card(again) == "Drawn from a seed."
    assert read_card(tmp_path) == read_card(encoder.save(tmp_path / "bare")) == ""


@pytest.mark.parametrize(
    ("options", "message"), [({"layer": 2}, "layer 2 does not exist; choose 0 to 1"), ({"pooling": "max"}, "pooling 'max' is unknown")]
)
def test_wrong_options_are_rejected(encoder, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_encoder(encoder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def with_external_call():
    """A program with an external call, here to a solver."""
    return export.export(jax.jit(jnp.linalg.cholesky))(jax.ShapeDtypeStruct((2, 2), np.float32)).serialize()


def with_other_arguments():
    return export.export(jax.jit(jnp.sin))(jax.ShapeDtypeStruct((2, 2), np.float32)).serialize()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: b"no program", "which JAX .* cannot read"),
        (lambda: b"\x00" * 4096, "which JAX .* cannot read"),
        (with_external_call, "with external calls. Make it again with `nutime export"),
        (with_other_arguments, r"with other arguments \(float32\[2,2\] -> float32\[2,2\]\)"),
        (lambda: b"", "contains an encoder without a program. Make one with `nutime export`"),
    ],
    ids=["text", "zeros", "calls", "form", "none"],
)
def test_invalid_programs_are_rejected(folder, tmp_path, program, message):
    about, arrays, card = load_bundle(folder, kind="encoder", schema=1, writer="")
    about = {name: value for name, value in about.items() if name != "program"}
    save_bundle(tmp_path / "sealed", about, arrays, kind="encoder", schema=1, card=card, program=bytes(program()))
    with pytest.raises(InputError, match=message):
        load_exported(tmp_path / "sealed")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("program.jax", b"other", "the checksum of program.jax does not match"),
        ("weights.safetensors", b"other", "the checksum of weights.safetensors does not match"),
        ("config.json", b"not: json", "the checksum of config.json does not match"),
        ("program.jax", None, "program.jax cannot be read"),
    ],
)
def test_corruption_is_found(encoder, folder, tmp_path, name, content, message):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_exported(tmp_path)
