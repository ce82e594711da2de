"""Parity with the published PyTorch implementation: arrays it computed on random weights and inputs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nutime_jax.convert.arrays import from_torch_state, to_torch_state
from nutime_jax.convert.encoders import encoder_from_torch
from nutime_jax.core.resample import resize
from nutime_jax.core.scalars import embed_scalar
from nutime_jax.core.views import Views
from nutime_jax.models.pooling import pool_tokens
from nutime_jax.training.state import state_from_variables
from nutime_jax.training.step import make_train_step
from tests import reference

TOLERANCE = 1e-5
# BatchNorm follows them, so their true gradient is zero and Adam amplifies what rounding leaves of it.
GRADIENT_FREE = {("encoder", "norm", "bias"), ("projector", "out", "bias")}


def error(ours, theirs):
    """Largest difference, relative to the largest magnitude."""
    return np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()


def below(file, prefix):
    return {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}


def leaves(tree):
    return {tuple(key.key for key in path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


pytestmark = pytest.mark.optimised

VARIANTS = ["univariate", "multivariate", "channel_sum", "no_mean_std", "univariate_instance_norm", "unweighted_scales"]


def assert_same_bits(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        assert ours[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_of_encoders_come_back_bit_for_bit(golden, variant):
    with np.load(golden / f"encoder_{variant}.npz", allow_pickle=False) as file:
        state = below(file, "state/")
        assert_same_bits(to_torch_state(*from_torch_state(state, json.loads(str(file["config"])))), state)
        found = encoder_from_torch(state, json.loads(str(file["config"])))
        unused = ("1.fc.", "0.channel_embedding.") if variant == "channel_sum" else ("1.fc.",)
        kept = {name: array for name, array in state.items() if not name.startswith(unused)}
        assert_same_bits(to_torch_state(found.encoder.network, found.encoder.variables), kept)


@pytest.mark.parametrize(("when", "batches"), [("init", 0), ("final", 6)])
def test_weights_of_byol_come_back_bit_for_bit(golden, when, batches):
    with np.load(golden / "byol_three_steps.npz", allow_pickle=False) as file:
        state = below(file, "init/") | below(file, f"{when}/")
        network, variables = from_torch_state(state, json.loads(str(file["config"])))
        assert_same_bits(to_torch_state(network, variables, batches=batches), state)


def encode(model, x):
    return model.encoder(x)


@pytest.mark.parametrize("variant", VARIANTS)
def test_encoder(golden, variant):
    with np.load(golden / f"encoder_{variant}.npz", allow_pickle=False) as file:
        model, variables = from_torch_state(below(file, "state/"), json.loads(str(file["config"])))
        x = jnp.asarray(file["x"])
        logits, encoding = jax.jit(lambda variables, x: (model.apply(variables, x), model.apply(variables, x, method=encode)))(variables, x)
        positions = variables["constants"]["encoder"]["positions"][1 : encoding.normalised.shape[1]]
        assert error(encoding.layers[0][:, 1:] - positions[None], file["tokens"]) < TOLERANCE
        assert error(pool_tokens(encoding, pooling="cls"), file["features"]) < TOLERANCE
        assert error(logits, file["logits"]) < TOLERANCE


@pytest.mark.parametrize("name", ["scales9_dim32", "scales5_dim16"])
def test_nme(golden, name):
    with np.load(golden / f"nme_{name}.npz", allow_pickle=False) as file:
        x, weight, bias, scales = (jnp.asarray(file[key], jnp.float32) for key in ("x", "state/ws", "state/bs", "state/scales"))
        y, pull = jax.vjp(lambda w, b: embed_scalar(x, w, b, scales), weight, bias)
        weight_gradient, bias_gradient = pull(jnp.asarray(file["cotangent"], jnp.float32))
        assert error(y, file["y"]) < TOLERANCE
        assert error(weight_gradient, file["grad_ws"]) < TOLERANCE
        assert error(bias_gradient, file["grad_bs"]) < TOLERANCE


def test_resize(golden):
    """The official code rounds positions to float32: at 176 points its own error is 2.7e-5."""
    with np.load(golden / "resize_linear.npz", allow_pickle=False) as file:
        names = [name for name in file.files if name.startswith("x_")]
        assert names
        for name in names:
            x, official, size = file[name], file[f"y{name[1:]}"], int(name.split("_")[2])
            exact = np.stack([reference.resize(row.astype(np.float64), size) for row in x])
            found = resize(jnp.asarray(x), size)
            assert error(found, exact) < 1e-6
            assert error(found, official) < TOLERANCE + error(official, exact)


def byol(file, dtype):
    """Starting state, step and batches of the published three steps."""
    network, variables = from_torch_state(below(file, "init/"), json.loads(str(file["config"])))
    tx = optax.adamw(float(file["lr"]), weight_decay=float(file["weight_decay"]))
    online, target = (jax.tree.map(lambda a: jnp.asarray(a, dtype), variables[name]) for name in ("online", "target"))
    state = state_from_variables(online, tx, target)
    # There the target has not moved for a fourth step when the three are over.
    momentum = jnp.asarray([*file["momentum"], 1.0], dtype)
    step = make_train_step(network, tx, views=[lambda key, views: Views(views, None)], momentum=lambda i: momentum[i], seed=0)
    batches = jnp.stack([jnp.asarray(file["x1"], dtype), jnp.asarray(file["x2"], dtype)], 2)
    return state, jax.jit(step), batches


def gradient_of_first_step(state):
    """The gradient of the first step: AdamW's first moment is a tenth of it."""
    return jax.tree.map(lambda moment: moment / 0.1, state.opt_state[0].mu)


def published_gradient(file):
    state = below(file, "init/") | below(file, "grad0/")
    _, variables = from_torch_state(state, json.loads(str(file["config"])))
    return leaves(variables["online"]["params"])


def test_byol_in_float64(golden, x64):
    with np.load(golden / "byol_three_steps.npz", allow_pickle=False) as file:
        state, step, batches = byol(file, jnp.float64)
        expected = published_gradient(file)
        for count, (batch, loss) in enumerate(zip(batches, file["loss"], strict=True)):
            state, metrics = step(state, batch)
            np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-8)
            for name, ours in leaves(gradient_of_first_step(state)).items() if count == 0 else ():
                if name in GRADIENT_FREE:
                    assert np.abs(ours).max() < 1e-12
                else:
                    assert error(ours, expected[name]) < 1e-8, name

        _, final = from_torch_state(below(file, "final/"), json.loads(str(file["config"])))
        for role, params, variables in (
            ("online", state.params, state.variables),
            ("target", state.target_params, state.target_variables),
        ):
            ours = leaves({"params": params, "batch_stats": variables["batch_stats"]})
            theirs = leaves({"params": final[role]["params"], "batch_stats": final[role]["batch_stats"]})
            assert ours.keys() == theirs.keys()
            for name in ours:
                if name[1:] not in GRADIENT_FREE:
                    assert error(ours[name], theirs[name]) < 1e-8, (role, name)


def test_byol_in_float32(golden):
    with np.load(golden / "byol_three_steps.npz", allow_pickle=False) as file:
        state, step, batches = byol(file, jnp.float32)
        state, metrics = step(state, batches[0])
        expected = published_gradient(file)
        assert abs(float(metrics["loss"]) / file["loss"][0] - 1) < 1e-5
        for name, ours in leaves(gradient_of_first_step(state)).items():
            if name not in GRADIENT_FREE:
                assert error(ours, expected[name]) < 1e-4, name
