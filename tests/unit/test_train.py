import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nutime_jax.config import load_config
from nutime_jax.core.views import Views
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.errors import DivergenceError, InputError, PreemptedError
from nutime_jax.loading import untrained_encoder
from nutime_jax.models.network import build_encoder
from nutime_jax.objectives import build_network
from nutime_jax.training.hooks import DispatchLimiter, DivergenceGuard, EveryNSteps, StopIfPreempted
from nutime_jax.training.program import build_program, learning_rate, make_optimizer
from nutime_jax.training.state import encoder_variables, replace_encoder, state_from_variables
from nutime_jax.training.step import make_train_step


@pytest.fixture(scope="module")
def config():
    return load_config("smoke", ["model.depth=1", "model.dropout=0.0"])


@pytest.fixture(scope="module")
def state(config):
    return build_program(config, mesh=make_mesh()).init()


def test_the_learning_rate_warms_up_and_decays():
    config = load_config("nutime_paper").optim
    schedule = learning_rate(config, steps=369_000)
    np.testing.assert_allclose([schedule(step) for step in (0, 18_450, 369_000)], [2e-6, 2e-3, 2e-5], rtol=1e-5)
    assert 2e-6 < schedule(9_000) < 2e-3


@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_weight_decay_reaches_what_it_should(config, decay):
    config = load_config("smoke", [f"optim.weight_decay_mask={decay}", "optim.warmup_steps=0", "optim.lr=1.0", "optim.weight_decay=0.5"])
    params = {"nme": {"weight": jnp.ones((2, 3)), "bias": jnp.ones((2, 3))}, "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    tx = make_optimizer(config.optim, steps=10)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    moved = jax.tree.map(lambda leaf: float(leaf.min()), updates)
    bias = -0.5 if decay == "all" else 0.0
    assert moved == {"nme": {"weight": -0.5, "bias": bias}, "dense": {"kernel": -0.5, "bias": bias}}


def test_the_untrained_baseline_is_the_state_at_step_zero(config, state):
    twin = untrained_encoder(config).variables
    jax.tree.map(np.testing.assert_array_equal, twin, encoder_variables(state))


def test_no_two_leaves_of_a_fresh_state_share_a_buffer(state):
    pointers = [shard.data.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards]
    assert len(set(pointers)) == len(pointers)


def test_a_run_starts_from_an_encoder_with_new_heads(config, state):
    other = untrained_encoder(load_config("smoke", ["model.depth=1", "seed=9"])).variables
    fused = {**other["params"]["embedding"], "fusion": {"kernel": np.ones((4, 2))}}  # of channels, which pretraining does not have
    started = replace_encoder(state, {**other, "params": {**other["params"], "embedding": fused}})
    jax.tree.map(np.testing.assert_array_equal, encoder_variables(started), other)
    jax.tree.map(np.testing.assert_array_equal, started.target_params["encoder"], other["params"])
    for name in ("projector", "predictor"):
        jax.tree.map(np.testing.assert_array_equal, started.params[name], state.params[name])
    leaves = [
        leaf.addressable_shards[0].data.unsafe_buffer_pointer()
        for name in ("params", "target_params")
        for leaf in jax.tree.leaves(getattr(started, name))
    ]
    assert len(set(leaves)) == len(leaves)
    with pytest.raises(InputError, match="start from an encoder with the same model"):
        replace_encoder(state, untrained_encoder(load_config("smoke", ["model.depth=2"])).variables)


def test_the_target_moves_after_the_update_by_the_next_momentum(config):
    network, tx = build_network(build_encoder(config.model), config.objective), optax.sgd(0.1)
    variables = jax.jit(network.init)(jax.random.key(1), jnp.zeros((2, 2, 1, config.length)))
    state = state_from_variables(variables, tx, jax.tree.map(lambda leaf: leaf + 1, variables))
    views = jax.random.normal(jax.random.key(2), (8, 2, 1, config.length))
    step = make_train_step(
        network, tx, views=[lambda key, batch: Views(batch, None)], momentum=lambda step: jnp.array([0.0, 0.7])[step], seed=0
    )
    after, _ = jax.jit(step)(state, views)
    online = {name: after.params[name] for name in after.target_params}
    expected = jax.tree.map(lambda target, new: 0.7 * target + 0.3 * new, state.target_params, online)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.target_params, expected)
    assert int(after.step) == 1


def test_a_collapse_is_said_and_then_stops_the_run():
    said = []
    guard = DivergenceGuard(collapse=0.01, patience=3, warn=said.append)
    well, collapsed = {"loss": 0.1, "grad_norm": 1.0, "projection_std": 0.5}, {"loss": 0.1, "grad_norm": 1.0, "projection_std": 0.001}
    guard(1, None, well)
    assert said == []
    guard(2, None, collapsed)
    guard(2, None, collapsed)
    assert guard.collapsed(collapsed)
    assert said == [
        "step 2: Representation collapse: projection std is 0.0010 (1.0 = uniform on the sphere); no checkpoint is written meanwhile"
    ]
    guard(3, None, well)
    guard(4, None, collapsed)
    guard(5, None, collapsed)
    with pytest.raises(DivergenceError, match=r"projection std is 0.0010 \(1.0 = .*\) since step 4; .* Lower optim.lr"):
        guard(6, None, collapsed)
    with pytest.raises(DivergenceError, match="grad_norm is nan at step 7"):
        guard(7, None, well | {"grad_norm": float("nan")})


def test_the_host_waits_for_steps_that_have_begun(monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    pace = DispatchLimiter(ahead=2)
    for step in (1, 2, 3, 4):
        pace(step, None, {"step": step})
    assert waited == [{"step": 1}, {"step": 2}]


class SyncPoint:
    """As JAX agrees: the step to stop after follows the last step that any process has asked for, counted from 0."""

    def __init__(self):
        self.last, self.stop = 0, None

    def signal(self):
        self.stop = self.last + 1

    def __call__(self, step):
        self.last = step
        return step == self.stop


@pytest.mark.parametrize(("start", "signalled_after"), [(0, 0), (100, 0), (100, 3)])
def test_a_preemption_at_any_time_of_a_run_is_noticed(start, signalled_after):
    saved, preempted = [], SyncPoint()
    save = lambda step, state, metrics: saved.append(step)  # noqa: E731
    save.saved_step = start + signalled_after + 1
    manager = types.SimpleNamespace(wait=lambda: None)
    hook = StopIfPreempted(preempted, save, manager, start=start)
    for step in range(start + 1, start + signalled_after + 1):
        hook(step, None, {})
    preempted.signal()  # before the first step: while a resumed run starts and compiles
    with pytest.raises(PreemptedError, match=f"saved a checkpoint at step {save.saved_step}. Rerun the same command"):
        hook(start + signalled_after + 1, None, {})
    assert saved == [start + signalled_after + 1]


def test_hooks_are_called_on_time_and_at_the_end():
    calls = []
    for every in (4, 0):
        hook = EveryNSteps(every, 10, lambda step, state, metrics: calls.append(step))
        for step in range(1, 11):
            hook(step, None, {})
    assert calls == [4, 8, 10]
