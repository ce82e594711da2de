from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import ModelConfig
from nutime_jax.convert.arrays import from_torch_state, official_config, to_torch_state
from nutime_jax.convert.encoders import check_target_moved, encoder_from_torch
from nutime_jax.convert.settings import infer_config, read_official_config
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder
from nutime_jax.models.heads import Classifier
from nutime_jax.models.network import NuTimeEncoder
from nutime_jax.models.positions import sinusoidal_positions

CONFIG = {
    "window_emb_dim": 8,
    "mb_emb_dim": 4,
    "window_size": 16,
    "transformer_depth": 1,
    "transformer_heads": 2,
    "transformer_head_dim": 4,
    "transformer_mlp_dim": 12,
    "transformer_max_tokens": 32,
    "wne_use_in": False,
    "wne_use_instance_stats": False,
    "use_channel_emb_sum": False,
    "use_ms_embed": True,
    "scale_weighted_sum": True,
}
SHAPES = {
    "0.window_embedding.weight": (8, 1, 16),
    "0.window_embedding.bias": (8,),
    "0.window_embed_norm.weight": (8,),
    "0.window_embed_norm.bias": (8,),
    "0.multi_bias_encoder.ws": (3, 4),
    "0.multi_bias_encoder.bs": (3, 4),
    "0.multi_bias_encoder.scales": (3,),
    "0.ms_embed_fc.0.weight": (8, 16),
    "0.ms_embed_fc.0.bias": (8,),
    "0.ms_embed_fc.1.weight": (8,),
    "0.ms_embed_fc.1.bias": (8,),
    "1.cls_token": (1, 1, 8),
    "1.pos_embed": (1, 32, 8),
    "1.transformer.layers.0.norm.weight": (8,),
    "1.transformer.layers.0.norm.bias": (8,),
    "1.transformer.layers.0.fn.to_qkv.weight": (24, 8),
    "1.transformer.layers.0.fn.to_out.0.weight": (8, 8),
    "1.transformer.layers.0.fn.to_out.0.bias": (8,),
    "1.transformer.layers.3.norm.weight": (8,),
    "1.transformer.layers.3.norm.bias": (8,),
    "1.transformer.layers.3.fn.layers.0.weight": (12, 8),
    "1.transformer.layers.3.fn.layers.0.bias": (12,),
    "1.transformer.layers.3.fn.layers.3.weight": (8, 12),
    "1.transformer.layers.3.fn.layers.3.bias": (8,),
    "1.norm.weight": (8,),
    "1.norm.bias": (8,),
}


HEAD = {
    "0.weight": (6, 8),
    **{f"1.{name}": (6,) for name in ("weight", "bias", "running_mean", "running_var")},
    "3.weight": (4, 6),
    "3.bias": (4,),
}
FUSION = {"0.weight": (8, 24), "0.bias": (8,), "1.weight": (8,), "1.bias": (8,)}


def draw(shapes, *, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def state():
    buffers = {"0.multi_bias_encoder.scales": np.float32([0.1, 1, 10]), "0.multi_bias_encoder.locs": np.zeros(1, np.int64)}
    return draw(SHAPES) | buffers


@pytest.fixture
def byol(state):
    head, counter = draw(HEAD), {"1.num_batches_tracked": np.asarray(6)}
    predictor = {**draw(HEAD | {"0.weight": (6, 4)}), **counter}
    backbone = {**state, **{f"1.fc.{name}": array for name, array in {**head, **counter}.items()}}
    byol = {f"{network}.{name}": array for network in ("backbone", "momentum_backbone") for name, array in backbone.items()}
    return {**byol, **{f"predictor.{name}": array for name, array in predictor.items()}}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_every_array_is_converted(state):
    model, variables = from_torch_state(state, CONFIG)
    assert isinstance(model, NuTimeEncoder)
    kernel = variables["params"]["embedding"]["shape"]["kernel"]
    np.testing.assert_array_equal(kernel, state["0.window_embedding.weight"][:, 0].T)
    encoding = jax.jit(model.apply)(variables, jnp.ones((2, 1, 64)))
    assert encoding.normalised.shape == (2, 5, 8)


def test_locations_come_over_with_their_vectors(state):
    located = state | {"0.multi_bias_encoder.locs": np.float32([-1, 0, 3]), "0.multi_bias_encoder.loc_emb": np.ones((3, 4), np.float32)}
    model, variables = from_torch_state(located, CONFIG)
    assert model.config.locations == (-1.0, 0.0, 3.0)
    assert variables["params"]["embedding"]["nme"]["location"].shape == (3, 4)
    assert_same(to_torch_state(model, variables), located)
    assert "locations weighted by distance" in encoder_from_torch(located, CONFIG).assumed
    with pytest.raises(InputError, match="loc_weighted_sum is false, but the state has vectors of locations"):
        from_torch_state(located, CONFIG | {"loc_weighted_sum": False})
    with pytest.raises(InputError, match=r"The locations \[-1.0, 0.0, 3.0\] have no vectors"):
        from_torch_state({name: array for name, array in located.items() if not name.endswith("loc_emb")}, CONFIG)


def test_learnable_scales_are_written_as_fixed_ones(state, byol):
    model, variables = from_torch_state(state, CONFIG)
    variables["params"]["embedding"]["nme"]["log_stretch"] = np.log(np.float32([2, 1, 0.5]))
    written = to_torch_state(NuTimeEncoder(replace(model.config, learnable_scales=True)), variables)
    np.testing.assert_allclose(written["0.multi_bias_encoder.scales"], np.float32([0.2, 1, 5]), rtol=1e-6)
    with pytest.raises(InputError, match="The scales of the two networks differ, because they were trained"):
        from_torch_state(byol | {"momentum_backbone.0.multi_bias_encoder.scales": np.float32([0.1, 1, 11])}, CONFIG)


def test_a_linear_head_makes_a_classifier(state):
    state |= {"1.fc.weight": np.ones((3, 8), np.float32), "1.fc.bias": np.zeros(3, np.float32)}
    model, variables = from_torch_state(state, CONFIG)
    assert jax.jit(model.apply)(variables, jnp.ones((2, 1, 64))).shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"2.odd.weight": np.ones(3)}, "'2.odd.weight' is not an array of a NuTime network"),
        ({"1.norm.odd": np.ones(3)}, "'1.norm.odd' is not an array"),
        ({"1.pos_embed": None}, "has no 1.pos_embed"),
        ({"1.norm.bias": None}, "params/norm/bias is missing"),
        ({"1.norm.bias": np.ones(9, np.float32)}, r"norm/bias has shape \(9,\); the configuration requires \(8,\)"),
    ],
)
def test_states_that_do_not_fit_are_rejected(state, change, message):
    state = {name: array for name, array in {**state, **change}.items() if array is not None}
    with pytest.raises(InputError, match=message):
        from_torch_state(state, CONFIG)


def test_a_network_comes_back_as_it_was(state):
    head = {"1.fc.weight": np.ones((3, 8), np.float32), "1.fc.bias": np.zeros(3, np.float32)}
    fusion = {f"0.channel_embedding.{name}": array for name, array in draw(FUSION).items()}
    for whole in (state, state | head, state | fusion, state | head | fusion):
        assert_same(to_torch_state(*from_torch_state(whole, CONFIG)), whole)
    summed = from_torch_state(state | head | fusion, CONFIG | {"use_channel_emb_sum": True})
    assert_same(to_torch_state(*summed), state | head | fusion)
    plain = {name: array for name, array in state.items() if "multi_bias" not in name and "ms_embed" not in name}
    assert_same(to_torch_state(*from_torch_state(plain, {"transformer_heads": 2})), plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "arrays", "options"),
    [
        (
            {"pe_mode": "learnable", "transformer_max_tokens": 1024},
            {"1.pos_embed": (1, 9, 8)},
            {"pos_embedding": "learned", "max_tokens": 9},
        ),
        (
            {"transformer_mask_type": "learnable", "transformer_mask_scale": 0.3},
            {"1.mask_token": (1, 1, 8)},
            {"mask_ratio": 0.3, "mask_type": "block", "mask_strategy": "learned"},
        ),
        ({"transformer_mask_type": "drop"}, {}, {"mask_ratio": 0.2, "mask_type": "random", "mask_strategy": "drop"}),
        ({"transformer_mask_type": "none", "transformer_mask_scale": 0.2, "pe_mode": "fixed"}, {}, {"mask_ratio": 0.0}),
    ],
)
def test_official_options_come_over_and_back(state, byol, settings, arrays, options):
    """With the configuration of the official run, which names more than its arrays have."""
    drawn = draw(arrays)
    both = {f"{network}.{name}": array for network in ("backbone", "momentum_backbone") for name, array in drawn.items()}
    for official in (state | drawn, byol | both):
        network, variables = from_torch_state(official, CONFIG | settings)
        model = (network if isinstance(network, NuTimeEncoder) else network.encoder).config
        assert {name: getattr(model, name) for name in options} == options
        assert_same(to_torch_state(network, variables, batches=6), official)
        again, _ = from_torch_state(official, official_config(model))
        assert (again if isinstance(again, NuTimeEncoder) else again.encoder).config == model
    with pytest.raises(InputError, match=r"pe_mode is 'rotary' in the configuration. It must be one of fixed, learnable"):
        from_torch_state(state, CONFIG | {"pe_mode": "rotary"})


def test_byol_comes_back_as_it_was(byol):
    network, variables = from_torch_state(byol, CONFIG)
    assert (network.hidden_dim, network.output_dim) == (6, 4)
    assert_same(to_torch_state(network, jax.tree.map(jnp.asarray, variables), batches=6), byol)


def test_networks_that_the_official_implementation_lacks_are_rejected():
    classifier = Classifier(NuTimeEncoder(), classes=2, norm="batch")
    with pytest.raises(InputError, match="no such network"):
        to_torch_state(classifier, {})


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"pos_embedding": "rotary"}, "pos_embedding 'rotary'"),
        ({"stride": 8}, "stride 8"),
        ({"extra_window_sizes": (8,)}, r"extra_window_sizes \(8,\)"),
        ({"backbone": "resnet"}, "backbone 'resnet'"),
    ],
)
def test_options_that_the_official_implementation_lacks_are_rejected(options, value):
    for module in (NuTimeEncoder(ModelConfig(**options)), Classifier(NuTimeEncoder(ModelConfig(**options)), classes=2)):
        with pytest.raises(InputError, match=f"The official implementation has no encoder with {value}. Convert one"):
            to_torch_state(module, {})


def test_arrays_tell_the_configuration(state):
    released = {"transformer_heads": 2, "dropout": 0.1, "lr": 1e-3}
    assert infer_config(state, released) == CONFIG | {"dropout": 0.1}
    wide = {**state, "1.transformer.layers.0.fn.to_qkv.weight": np.zeros((3 * 192, 8), np.float32)}
    assert [infer_config(wide)[f"transformer_{name}"] for name in ("heads", "head_dim")] == [3, 64]
    assert infer_config(wide, {"transformer_head_dim": 32})["transformer_heads"] == 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "The attention is 8 wide and is not divisible by the official head width 64. Pass the number of heads"),
        ({"transformer_heads": 3}, "The attention is 8 wide and 3 heads of 2 are given"),
        ({"transformer_heads": 2, "transformer_head_dim": 5}, "The attention is 8 wide and 2 heads of 5 are given"),
        ({"transformer_depth": 10**9}, "transformer_depth is 1000000000 in the configuration and 1 in the arrays"),
        ({"window_size": 32}, "window_size is 32 in the configuration and 16 in the arrays"),
        ({"transformer_heads": 0}, "transformer_heads is 0 in the configuration. It must be a whole number above 0"),
        ({"transformer_heads": "two"}, "transformer_heads is 'two'"),
        ({"wne_use_in": 1}, "wne_use_in is 1 in the configuration. It must be true or false"),
        ({"dropout": 1.0}, "dropout is 1.0 in the configuration. It must be a number from 0 to below 1"),
        ({"transformer_heads": 2, "use_ms_embed": False}, "embedding/merge/bias does not exist in the model"),
    ],
)
def test_a_wrong_configuration_is_rejected(state, config, message):
    with pytest.raises(InputError, match=message):
        from_torch_state(state, config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra.weight": np.ones(3)}, "'extra.weight' is not an array of BYOL"),
        ({"momentum_backbone.1.norm.bias": None}, "params/encoder/norm/bias is missing"),
        ({"momentum_backbone": None}, "The state has no arrays of momentum_backbone"),
        ({"predictor": None}, "The state has no arrays of predictor"),
        ({"backbone.1.fc.3.weight": np.ones(3)}, r"backbone.1.fc.3.weight has shape \(3,\) but must have 2 axes"),
    ],
)
def test_byol_that_does_not_fit_is_rejected(byol, change, message):
    (name, array), *_ = change.items()
    byol = {one: value for one, value in byol.items() if array is not None or not one.startswith(name)}
    with pytest.raises(InputError, match=message):
        from_torch_state(byol | ({} if array is None else change), CONFIG)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "Cannot read"),
        ("window_size: 16", "is not a JSON file"),
        ("[" * 100_000, "is not a JSON file"),
        ("[1, 2]", "has none of the official settings"),
        ('{"lr": 1}', "has none of the official settings"),
        ('{"window_size": 16.5}', "window_size is 16.5"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_rejected(tmp_path, content, message):
    if content is not None:
        (tmp_path / "release.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_official_config(tmp_path / "release.json")


def test_a_target_network_that_never_moved_is_found(byol):
    assert check_target_moved(draw(SHAPES)) is None
    copied = check_target_moved(byol)
    assert (copied.arrays, copied.equal) == (29, 29)
    assert copied.verdict.startswith("the target network is a copy of the online network: all 29 arrays are equal")

    rng = np.random.default_rng(1)
    moved = {name: array + rng.normal(size=array.shape) if name.startswith("momentum") else array for name, array in byol.items()}
    assert check_target_moved(moved).verdict.startswith("the target network moved: 10 of its 10 LayerNorm arrays left 1 and 0; 0 of 29")

    norms = [name for name in moved if "norm." in name or "ms_embed_fc.1." in name]
    start = {name: np.full(byol[name].shape, float(name.endswith("weight"))) for name in norms}
    momentum = {name: array for name, array in start.items() if name.startswith("momentum")}
    stuck = check_target_moved(moved | momentum)
    assert (stuck.norms, stuck.untouched, stuck.online_untouched) == (10, 10, 0)
    assert stuck.verdict.startswith("the target network never moved: its 10 LayerNorm arrays have their initial values")
    assert "it is unknown whether" in check_target_moved(moved | start).verdict


def test_an_encoder_comes_out_of_every_kind_of_state(byol, state, tmp_path):
    online = encoder_from_torch(byol, {"transformer_heads": 2})
    assert (online.kind, online.dropped) == ("BYOL", ("projector and predictor", "the target network"))
    # CLS, the window's embedding, two norms, NME, the merge; a block; the last norm.
    assert online.parameters == 8 + 136 + 32 + 24 + 136 + (32 + 192 + 72 + 108 + 104) + 16
    assert online.encoder.config.length == 31 * 16  # as many windows as there are positions for
    assert "dropout 0.1" in online.assumed
    assert not [text for text in online.assumed if text.startswith("heads")]

    fused = state | {f"0.channel_embedding.{name}": array for name, array in draw(FUSION).items()}
    head = {"1.fc.weight": np.ones((3, 8), np.float32), "1.fc.bias": np.zeros(3, np.float32)}
    labelled = encoder_from_torch({name: array.astype(np.float64) for name, array in (fused | head).items()}, CONFIG, length=64)
    assert (labelled.kind, labelled.dropped, labelled.target_drift) == ("classifier", ("the head of 3 classes",), None)
    loaded = load_encoder(labelled.encoder.save(tmp_path / "encoder"))
    assert_same(to_torch_state(loaded.network, loaded.variables), fused)
    x = np.random.default_rng(0).normal(size=(2, 3, 100)).astype(np.float32)
    alone = encoder_from_torch(state, CONFIG, length=64).encoder
    np.testing.assert_array_equal(loaded.embed(x, channels="none"), alone.embed(x, channels="none"))


def test_the_network_of_a_state_is_chosen(byol, state):
    byol["momentum_backbone.1.norm.bias"] = np.arange(8, dtype=np.float32)
    momentum = encoder_from_torch(byol, CONFIG, network="target")
    np.testing.assert_array_equal(momentum.encoder.variables["params"]["norm"]["bias"], np.arange(8))
    assert momentum.dropped == ("projector", "the online network")
    assert momentum.target_drift.equal == 28
    for wrong, message in (
        ({"network": "target"}, "no target network"),
        ({"network": "momentum"}, "network 'momentum' is unknown. Choose one of online, target"),
        ({"length": 40}, "length 40 does not suit the encoder. Choose a multiple of 16, at most 496"),
        ({"length": 512}, "length 512 does not suit"),
    ):
        with pytest.raises(InputError, match=message):
            encoder_from_torch(state, CONFIG, **wrong)


def test_positions_are_sines_and_cosines():
    table = sinusoidal_positions(50, 6)
    position = np.arange(50)
    for pair, frequency in enumerate(10000.0 ** (-np.arange(0, 6, 2) / 6)):
        np.testing.assert_allclose(table[:, 2 * pair], np.sin(position * frequency), atol=1e-5)
        np.testing.assert_allclose(table[:, 2 * pair + 1], np.cos(position * frequency), atol=1e-5)
