"""Encoders of a scalar: one protocol, by name, in an encoder that is saved, loaded, fitted and resumed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from benchmarks.matmul_formula import step_flops
from nutime_jax.config import ModelConfig, load_config, update
from nutime_jax.convert.arrays import to_torch_state
from nutime_jax.core.scalars import quantile_edges, symmetric_edges
from nutime_jax.core.views import Views
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.encoder import Encoder
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder, untrained_encoder
from nutime_jax.models.layers import Linear
from nutime_jax.models.network import NuTimeEncoder, build_encoder
from nutime_jax.models.scalar_encoders import SCALAR_ENCODERS
from nutime_jax.report.nme import plot_nme
from nutime_jax.training import loop
from nutime_jax.training import state as fitting
from nutime_jax.training.flops import count_matmuls
from nutime_jax.training.input_pipeline import abstract_batch
from nutime_jax.training.program import build_program
from nutime_jax.training.state import init_from_data
from tests import reference

FINITE = np.float32([0, 1e-45, 1e-38, 1e-30, 1e-8, 1e-4, 1e-3, 0.5, 1, 7, 1e4, 1e8, 1e16, 1e20, 1e38, np.finfo(np.float32).max])
X = jnp.asarray(np.concatenate([FINITE, -FINITE]))
KINDS = {
    "nme": {},
    "nme, unweighted": {"scale_weighting": False},
    "nme, trained": {"learnable_scales": True},
    "nme, relative": {"scale_eps": "relative", "learnable_scales": True},
    "nme, located": {"locations": (-1.0, 0.0, 3.0)},
    "periodic": {"scalar_encoder": "periodic"},
    "periodic, trained": {"scalar_encoder": "periodic", "frequency_init": "log-linear", "learnable_frequencies": True},
    "piecewise": {"scalar_encoder": "piecewise", "bins": 8},
    "log": {"scalar_encoder": "log"},
    "linear": {"scalar_encoder": "linear"},
}


def small(**fields):
    return NuTimeEncoder(
        ModelConfig(window_size=8, width=8, depth=1, num_heads=1, head_dim=8, mlp_dim=8, max_tokens=5, scale_dim=6, **fields)
    )


def configured(*overrides, steps=4, **fields):
    config = load_config("smoke", ["model.depth=1", "model.dropout=0.0", f"steps={steps}", "optim.warmup_steps=1", *overrides])
    return update(config, {"model": fields})


SAVED = {"nme, all options": KINDS["nme, relative"] | KINDS["nme, located"]}
SAVED |= {name: KINDS[name] for name in ("periodic", "piecewise", "log", "linear")}
each_kind = pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)


@each_kind
def test_the_protocol_holds_for_every_kind(fields):
    """Any shape, one vector a scalar whatever its company, finite in value and gradient at any finite float32."""
    encoder = small(**fields)
    module = SCALAR_ENCODERS[encoder.config.scalar_encoder](encoder.config, None)
    variables = jax.jit(module.init)(jax.random.key(0), X)
    params, constants = variables.get("params", {}), {name: tree for name, tree in variables.items() if name != "params"}

    @jax.jit
    def embed(params, x):
        y, pull = jax.vjp(lambda params, x: module.apply({"params": params, **constants}, x), params, x)
        folded = module.apply({"params": params, **constants}, x.reshape(2, 4, 4))
        return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), folded

    y, gradients, folded = embed(params, X)
    assert (y.shape, y.dtype) == ((len(X), encoder.config.scale_dim), jnp.float32)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))
    size = np.abs(y).max(-1, keepdims=True).clip(1e-3)
    np.testing.assert_allclose(folded.reshape(y.shape) / size, y / size, atol=1e-5)
    told = np.asarray(y)[(np.abs(X) >= 0.5) & (np.abs(X) <= 1e4)]
    distances = np.linalg.norm(told[:, None] - told[None], axis=-1)
    assert (distances[~np.eye(len(told), dtype=bool)] > 1e-3).all()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(fields, id=name, marks=[pytest.mark.slow] if name in ("periodic", "log", "linear") else [])
        for name, fields in SAVED.items()
    ],
)
def test_an_encoder_of_every_kind_survives_saving_and_any_scale(fields, tmp_path):
    config = configured(**fields)
    made = untrained_encoder(config)
    series = np.cumsum(np.random.default_rng(0).normal(size=(5, 64)), axis=1) * np.array([1e-38, 1e-4, 1, 1e8, 1e36])[:, None]
    features = made.embed(series)
    assert np.isfinite(features).all()
    loaded = load_encoder(made.save(tmp_path / "one"))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, made.variables)
    assert loaded.network == made.network
    np.testing.assert_array_equal(loaded.embed(series), features)


def test_the_released_encoder_has_the_names_and_draws_it_had():
    made = jax.eval_shape(small().init, jax.random.key(0), jnp.zeros((1, 1, 32)))
    names = {"/".join(path) for path in flatten_dict(made["params"]["embedding"])}
    assert {name for name in names if name.startswith(("nme", "scalars"))} == {"nme/weight", "nme/bias"}
    assert set(made["constants"]) == {"positions"}
    # The published form is untouched by what the options add: the same draws with them.
    drawn = [nme(**fields)[1]["params"] for fields in ({}, {"learnable_scales": True}, {"locations": (0.0,)})]
    for name, other in itertools.product(("weight", "bias"), drawn[1:]):
        np.testing.assert_array_equal(other[name], drawn[0][name])


def nme(**fields):
    encoder = small(**fields)
    module = SCALAR_ENCODERS["nme"](encoder.config, None)
    variables = jax.jit(module.init)(jax.random.key(1), jnp.zeros(1))
    scales = np.float32(encoder.config.scales).astype(np.float64)
    return jax.jit(module.apply), variables, {name: np.float64(leaf) for name, leaf in variables["params"].items()}, scales


def test_trained_scales_begin_where_they_are_given_and_stay_positive():
    apply, variables, params, scales = nme(learnable_scales=True)
    x = np.float32([0.0, -0.02, 0.3, 5.0, -700.0])
    np.testing.assert_array_equal(variables["params"]["log_stretch"], 0)
    expected = reference.embed_scalar(x.astype(np.float64), params["weight"], params["bias"], scales)
    np.testing.assert_allclose(apply(variables, jnp.asarray(x)), expected, atol=1e-5 * np.abs(expected).max())
    moved = np.float32(np.linspace(-2, 2, len(scales)))
    variables["params"]["log_stretch"] = jnp.asarray(moved)
    expected = reference.embed_scalar(x.astype(np.float64), params["weight"], params["bias"], scales * np.exp(moved.astype(np.float64)))
    np.testing.assert_allclose(apply(variables, jnp.asarray(x)), expected, atol=1e-5 * np.abs(expected).max())
    for far in (-1e30, 1e30):
        variables["params"]["log_stretch"] = jnp.full(len(scales), far, jnp.float32)
        assert np.isfinite(apply(variables, X)).all()


def test_locations_follow_the_reference():
    locations = (-1.0, 0.0, 3.0)
    apply, variables, params, scales = nme(locations=locations)
    x = np.float32([0.0, -1.0, 0.3, 5.0, -700.0, 2.9])
    seen = x.astype(np.float64)[:, None] - np.array(locations)
    weights = 1 / (np.log1p(np.abs(seen)) + 1e-6)
    weights /= weights.sum(-1, keepdims=True)
    each = reference.embed_scalar(seen, params["weight"], params["bias"], scales) + params["location"]
    expected = (weights[..., None] * each).sum(-2)
    np.testing.assert_allclose(apply(variables, jnp.asarray(x)), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"scalar_encoder": "nmee"},
            "model.scalar_encoder is 'nmee'; choose one of nme, periodic, piecewise, log, linear, or register it in",
        ),
        ({"scale_eps": "none"}, "model.scale_eps is 'none'; choose one of absolute, relative"),
        ({"frequency_init": "uniform"}, "model.frequency_init is 'uniform'; choose one of normal, log-linear"),
        ({"scalar_encoder": "piecewise", "bins": 0}, "model.bins is 0; choose an integer from 1 to 4,096"),
        (
            {"scalar_encoder": "periodic", "scale_dim": 7},
            "model.scale_dim is 7, and periodic features come in pairs; choose an even number",
        ),
        ({"scales": (1.0, -2.0)}, r"model.scales is \(1.0, -2.0\); choose numbers above 0"),
    ],
)
def test_fields_that_cannot_be_are_rejected(fields, message):
    with pytest.raises(InputError, match=message):
        build_encoder(configured(**fields).model)


class Sign(nn.Module):
    dim: int

    @nn.compact
    def __call__(self, x):
        return Linear(self.dim, name="out")(jnp.sign(x)[..., None])


def test_the_table_is_open(monkeypatch, tmp_path):
    monkeypatch.setitem(SCALAR_ENCODERS, "sign", lambda model, name: Sign(model.scale_dim, name=name))
    made = untrained_encoder(configured(scalar_encoder="sign"))
    assert made.variables["params"]["embedding"]["scalars"]["out"]["kernel"].shape == (1, 8)
    made.save(tmp_path / "one")
    assert load_encoder(tmp_path / "one").network == made.network
    monkeypatch.delitem(SCALAR_ENCODERS, "sign")
    with pytest.raises(
        InputError,
        match=r"^model.scalar_encoder is 'sign'; choose one of nme, .*, or register it in models.scalar_encoders.SCALAR_ENCODERS$",
    ):
        load_encoder(tmp_path / "one")


# ---- What is fitted to data


def fitted_to(batches, config, state, views=None):
    """A state whose scalar encoder is fitted to batches of 16 series, each its own two views."""

    def both(key, batch):
        return Views(jnp.stack([batch, batch], 1)[:, :, None], jnp.full((len(batch), 1), 5.0))

    options = {"length": config.length, "key": jax.random.key(0), "mesh": make_mesh()}
    return init_from_data(state, config.model, batches, views=views or both, **options)


def test_edges_are_quantiles_of_means_and_stds_of_what_a_run_sees():
    config = configured(scalar_encoder="piecewise", bins=4)
    program = build_program(config, mesh=make_mesh())
    batches = [jnp.asarray(10.0**k * np.random.default_rng(k).normal(size=(16, 64)), jnp.float32) for k in range(4)]
    fresh = program.init()
    state = fitted_to(batches, config, fresh)
    x = np.concatenate(batches).astype(np.float64).reshape(64, 4, 16)
    expected = quantile_edges(np.stack([x.mean(-1) + 5, x.std(-1, ddof=1)]), 4)
    fitted, target = (tree["constants"]["encoder"]["embedding"]["scalars"]["edges"] for tree in (state.variables, state.target_variables))
    np.testing.assert_allclose(fitted, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(fitted, target)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == jax.tree.map(lambda leaf: leaf.sharding, program.state)
    pointers = [shard.data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards]
    assert len(set(pointers)) == len(pointers)

    flat = lambda key, batch: Views(jnp.zeros((16, 2, 1, 64)), jnp.zeros((16, 1)))  # noqa: E731
    with pytest.raises(InputError, match="bins cannot be fitted to 256 scalars that all are 0; pass scalars that differ"):
        fitted_to([jnp.zeros((16, 64))], config, fresh, views=flat)


@pytest.mark.parametrize("fields", [{}, {"scalar_encoder": "periodic"}, {"scalar_encoder": "piecewise", "window_stats": "none"}])
def test_where_nothing_is_fitted_no_batch_is_read(fields):
    assert fitted_to(None, configured(**fields), "as it was") == "as it was"


FITTED = {"scalar_encoder": "piecewise", "bins": 8}


def edges_of(encoder):
    return encoder.variables["constants"]["embedding"]["scalars"]["edges"]


@pytest.mark.slow
def test_fitted_edges_are_kept_over_resume_saving_and_in_the_baseline(tmp_path, monkeypatch):
    config = configured("data.sources=ArrowHead", "run.probe_every=0", steps=2, **FITTED)
    state = loop.pretrain(config, tmp_path / "run", devices=1)
    trained = load_encoder(tmp_path / "run")
    edges = np.array(edges_of(trained))
    assert -3 < edges[0] < edges[-1] < 3  # ArrowHead is standardised
    assert (np.diff(edges) > 0).all()
    assert not np.array_equal(edges, symmetric_edges(8))

    # The run is over: it is resumed at its last step, and takes no other.
    monkeypatch.setattr(fitting, "DATA_FITTED_CONSTANTS", {"piecewise": lambda *_: pytest.fail("fitted again")})
    resumed = loop.pretrain(config, tmp_path / "run", devices=1)
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, state.variables)

    saved = load_encoder(trained.save(tmp_path / "saved"))
    np.testing.assert_array_equal(edges_of(saved), edges)
    np.testing.assert_array_equal(edges_of(untrained_encoder(saved.config, trained=saved)), edges)
    np.testing.assert_array_equal(edges_of(untrained_encoder(saved.config)), symmetric_edges(8))


# ---- Elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("fields", [KINDS[name] for name in ("nme, located", "periodic", "piecewise", "log")])
def test_matmul_flops_of_a_step_match_the_formula(fields):
    config = configured(**fields)
    program = build_program(config, mesh=make_mesh(1))
    counted = count_matmuls(
        program.step.trace(program.state, abstract_batch(config.data, make_mesh(1), batch_size=config.batch_size)).jaxpr
    )
    assert counted.flops == {"highest": step_flops(config)}


def test_what_only_the_nme_can_is_rejected_of_others():
    for fields in ({"scalar_encoder": "log"}, {"scalar_encoder": "periodic"}, {"scale_eps": "relative"}):
        name, value = next(iter(fields.items()))
        with pytest.raises(InputError, match=f"The official implementation has no encoder with {name} '{value}'. Convert one"):
            to_torch_state(small(**fields), {"params": {}})
    with pytest.raises(InputError, match=r"embeds mean and std by 'periodic'. `plot nme` needs an encoder with model.scalar_encoder=nme"):
        plot_nme(Encoder(configured(scalar_encoder="periodic"), {}))


@pytest.mark.slow
def test_the_options_of_the_nme_are_drawn():
    made = untrained_encoder(configured(**KINDS["nme, relative"], locations=(0.0, 1.0)))
    weights, embedded, _ = (np.asarray(axes.images[0].get_array()) for axes in plot_nme(made).axes if axes.get_title(loc="left"))
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-5)
    assert np.isfinite(embedded).all()
