import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.convert import from_torch_state
from nutime_jax.errors import InputError
from nutime_jax.models.encoder import NuTimeEncoder, sinusoidal_positions

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


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} | {
        "0.multi_bias_encoder.scales": np.float32([0.1, 1, 10])
    }


def test_every_array_finds_its_place(state):
    model, variables = from_torch_state(state, CONFIG)
    assert isinstance(model, NuTimeEncoder)
    kernel = variables["params"]["embedding"]["shape"]["kernel"]
    np.testing.assert_array_equal(kernel, state["0.window_embedding.weight"][:, 0].T)
    encoding = model.apply(jax.tree.map(jnp.asarray, variables), jnp.ones((2, 1, 64)))
    assert encoding.normalised.shape == (2, 5, 8)


def test_a_linear_head_makes_a_classifier(state):
    state |= {"1.fc.weight": np.ones((3, 8), np.float32), "1.fc.bias": np.zeros(3, np.float32)}
    model, variables = from_torch_state(state, CONFIG)
    assert model.apply(jax.tree.map(jnp.asarray, variables), jnp.ones((2, 1, 64))).shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"2.odd.weight": np.ones(3)}, "'2.odd.weight' is no array of a NuTime network"),
        ({"1.norm.odd": np.ones(3)}, "'1.norm.odd' is no array"),
        ({"1.pos_embed": None}, "has no 1.pos_embed"),
        ({"1.norm.bias": None}, "params/norm/bias is missing"),
        ({"1.norm.bias": np.ones(9, np.float32)}, r"norm/bias has shape \(9,\) where the configuration asks for \(8,\)"),
    ],
)
def test_what_does_not_fit_is_refused(state, change, message):
    state = {name: array for name, array in {**state, **change}.items() if array is not None}
    with pytest.raises(InputError, match=message):
        from_torch_state(state, CONFIG)


def test_positions_are_sines_and_cosines():
    table = sinusoidal_positions(50, 6)
    position = np.arange(50)
    for pair, frequency in enumerate(10000.0 ** (-np.arange(0, 6, 2) / 6)):
        np.testing.assert_allclose(table[:, 2 * pair], np.sin(position * frequency), atol=1e-5)
        np.testing.assert_allclose(table[:, 2 * pair + 1], np.cos(position * frequency), atol=1e-5)
