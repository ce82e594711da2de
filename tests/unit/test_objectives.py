"""Every objective: its loss, and three optimiser steps of the step that trains, against NumPy in float64."""

import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.cli.main import main
from nutime_jax.config import load_config, to_dict, update
from nutime_jax.convert.encoders import torch_state_of
from nutime_jax.core.masking import sample_mask
from nutime_jax.core.scalars import signed_log
from nutime_jax.core.views import Views
from nutime_jax.core.windows import Windows, normalise_windows
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.errors import InputError
from nutime_jax.loading import load_encoder, untrained_encoder
from nutime_jax.models.microbatches import Microbatches
from nutime_jax.models.network import build_encoder
from nutime_jax.objectives import OBJECTIVES, build_network, make_objective, masked
from nutime_jax.objectives.byol import simsiam_loss
from nutime_jax.objectives.contrastive import moco_loss
from nutime_jax.objectives.masked import masked_loss, window_targets
from nutime_jax.training.checkpoints import CheckpointManager
from nutime_jax.training.loop import _check_same_run, check_config
from nutime_jax.training.program import learning_rate, make_optimizer
from nutime_jax.training.state import encoder_variables, state_from_variables
from nutime_jax.training.step import make_train_step
from tests import reference

PAIRS = {
    "simsiam": (simsiam_loss, reference.simsiam_loss),
    "moco": (partial(moco_loss, temperature=0.3), partial(reference.moco_loss, temperature=0.3)),
    "masked": (masked_loss, reference.masked_loss),
}


def draws(kind, seed=0):
    """Predictions and targets; errors of statistics on both sides of where their loss changes its form."""
    shape = (3, 2, 2, 1, 7) if kind == "masked" else (5, 2, 4)
    return np.random.default_rng(seed).normal(size=(2, *shape))


@pytest.mark.parametrize("kind", PAIRS)
def test_the_loss_follows_the_reference(kind, x64):
    ours, theirs = PAIRS[kind]
    p, t = draws(kind)
    np.testing.assert_allclose(ours(jnp.asarray(p), jnp.asarray(t)), theirs(p, t), rtol=1e-13)


@pytest.mark.parametrize("kind", PAIRS)
def test_the_gradient_follows_differences_and_targets_have_none(kind, x64):
    ours, theirs = PAIRS[kind]
    p, t = draws(kind, seed=1)
    by_predictions, by_targets = jax.grad(ours, (0, 1))(jnp.asarray(p), jnp.asarray(t))
    np.testing.assert_allclose(by_predictions, reference.differences(lambda p: theirs(p, t), p), atol=1e-8)
    assert (np.asarray(by_targets) == 0).all()


def test_losses_have_the_scale_that_is_stated():
    same = jnp.ones((8, 2, 4))
    assert float(simsiam_loss(same, same)) == pytest.approx(-1)
    assert float(simsiam_loss(same, -same)) == pytest.approx(1)
    assert float(moco_loss(same, same, temperature=0.2)) == pytest.approx(2 * 2 * 0.2 * math.log(8), rel=1e-5)
    shapes = normalise_windows(jax.random.normal(jax.random.key(0), (50, 64)), window=16)
    targets = window_targets(shapes)
    zero_shape = targets.at[..., :-2].set(0)
    assert float(masked_loss(zero_shape, targets)) == pytest.approx(15 / 16, rel=1e-5)
    twice = window_targets(shapes._replace(std=math.e * shapes.std))  # the std a factor of e off, the mean as it is
    assert float(masked_loss(twice, targets)) == pytest.approx(1 / 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["simsiam", "moco"])
def test_zeros_have_finite_gradients(kind):
    zeros = jnp.zeros((4, 2, 3))
    assert np.isfinite(jax.grad(PAIRS[kind][0])(zeros, zeros)).all()


def test_statistics_of_any_magnitude_weigh_alike():
    decades = jnp.asarray([10.0**k for k in range(-3, 16)], jnp.float32)
    steps = np.diff(np.asarray(signed_log(decades)))
    np.testing.assert_allclose(steps, math.log(10), rtol=2e-3)
    np.testing.assert_array_equal(signed_log(-decades), -np.asarray(signed_log(decades)))
    ends = jnp.asarray(np.float32([0, 1e-30, 3e38, -3e38]))
    assert np.isfinite(jax.vmap(jax.value_and_grad(signed_log))(ends)).all()
    whole = window_targets(Windows(jnp.zeros((4, 16)), ends, jnp.abs(ends)))
    assert np.isfinite(whole).all()


TINY = ["model.dropout=0.0", "batch_size=6", "length=32", "steps=5", "objective.hidden_dim=7", "objective.output_dim=5"]
MODEL = {"window_size": 8, "width": 6, "depth": 1, "num_heads": 2, "head_dim": 3, "mlp_dim": 8, "scale_dim": 4}
RUNS = {
    "byol": ([], {"mask_ratio": 0.5, "mask_type": "block", "mask_strategy": "drop"}),
    "simclr": (["objective.pooling=mean"], {}),
    "simsiam": (["objective.pooling=cls+mean"], {}),
    "moco": (["objective.temperature=0.2"], {"mask_ratio": 0.5}),
    "masked": (["objective.mask_ratio=0.4"], {}),
}
"""Fields of the configuration, and of the model; every pooling and fill occurs. BYOL as published is compared in tests/golden."""


def tiny(kind):
    overrides, model = RUNS[kind]
    return update(load_config("smoke", [*TINY, f"objective.kind={kind}", *overrides]), {"model": MODEL | model})


def as_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


class Reference:
    """What a step computes, from parameters and the masks that it drew."""

    def __init__(self, config, variables):
        scales = np.float32(config.model.scales).astype(np.float64)
        self.config, self.objective = config, config.objective
        self.positions = np.asarray(variables["constants"]["encoder"]["positions"], np.float64)
        self.encode = partial(reference.encode, window=8, heads=2, scales=scales)

    def project(self, params, views, hidden):
        """(batch, 2, dim)."""
        pooling, found = self.objective.pooling, []
        filling = params["encoder"].get("mask_token")
        for view in (0, 1):
            masks = {} if hidden is None else {"hidden": hidden[:, view], "filling": filling}
            tokens = self.encode(views[:, view], params["encoder"], self.positions, **masks)
            parts = {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
            found.append(reference.head(np.concatenate([parts[one] for one in pooling.split("+")], -1), params["projector"]))
        return np.stack(found, 1)

    def targets(self, params, target_params, views, hidden):
        """What the loss compares with: constants to the gradient, but for SimCLR."""
        kind = self.objective.kind
        if kind == "masked":
            return reference.window_targets(views, 8)[hidden].reshape(6, 2, -1, 10)
        return self.project(target_params if kind in ("byol", "moco") else params, views, hidden)

    def loss(self, params, targets, views, hidden):
        kind, temperature = self.objective.kind, self.objective.temperature
        if kind == "masked":
            shape = (12, *views.shape[2:]), (12, *hidden.shape[2:])
            masks = {"hidden": hidden.reshape(shape[1]), "filling": params["mask_token"]}
            tokens = self.encode(views.reshape(shape[0]), params["encoder"], self.positions, **masks)
            found = reference.linear(tokens[:, 1:][masks["hidden"]], params["head"])
            return reference.masked_loss(found.reshape(targets.shape), targets)
        projections = self.project(params, views, hidden)
        if kind == "simclr":
            return reference.info_nce_loss(projections, projections, temperature=temperature)
        predictions = np.stack([reference.head(projections[:, view], params["predictor"]) for view in (0, 1)], 1)
        if kind == "byol":
            return reference.byol_loss([predictions[:, 0], predictions[:, 1]], [targets[:, 0], targets[:, 1]])
        if kind == "simsiam":
            return reference.simsiam_loss(predictions, targets)
        return reference.moco_loss(predictions, targets, temperature=temperature)


class KnownMasks:
    """`sample_mask` with keys of its own, so that masks are known: other masks at every step and every place of the program."""

    def __init__(self, steps):
        self.steps, self.step, self.masks = steps, None, []

    def __call__(self, key, *args, **options):
        with jax.ensure_compile_time_eval():
            keys = [jax.random.key(self.steps * len(self.masks) + step) for step in range(self.steps)]
            masks = np.stack([sample_mask(key, *args, **options) for key in keys])
        if self.step is None:  # the network is initialised
            return jnp.asarray(masks[0])
        self.masks.append(masks)
        return jnp.asarray(masks)[self.step]

    def at(self, step):
        """Return the masks of a step, (batch, views, windows) each: that of the online network, and the last one that was drawn."""
        found = [masks[step].reshape(6, 2, -1) for masks in self.masks] or [None]
        return found[0], found[-1]


def three_steps(config, monkeypatch):
    """Run three steps, each beside the reference: the loss, the gradient along directions, AdamW and the moving average."""
    masks, rng = KnownMasks(steps=3), np.random.default_rng(3)
    monkeypatch.setattr(masked, "sample_mask", masks)
    monkeypatch.setattr("nutime_jax.models.network.sample_mask", masks)
    network, objective, optim = build_network(build_encoder(config.model), config.objective), make_objective(config.objective), config.optim
    tx, momenta = make_optimizer(optim, steps=config.steps), [0.0, 0.6, 0.8, 0.9]
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, 2, 1, config.length)))
    variables = jax.tree_util.tree_map_with_path(partial(_drawn, rng), shapes)
    state = state_from_variables(variables, tx)
    state = state if objective.target else state.replace(target_params={}, target_variables={})
    momentum = lambda step: jnp.asarray(momenta)[step]  # noqa: E731
    augment = lambda key, batch: Views(batch, None)  # noqa: E731
    train_step = make_train_step(network, tx, views=[augment], momentum=momentum, seed=0, objective=objective)

    @jax.jit
    def step(state, batch):
        masks.step = state.step
        return train_step(state, batch)

    check, losses = Reference(config, variables), []
    first = second = jax.tree.map(np.zeros_like, as_float64(state.params))
    for count in range(3):
        views = rng.normal(size=(6, 2, config.length)).cumsum(-1) * 10.0 ** rng.integers(-2, 3, size=(6, 1, 1))
        before, target = as_float64(state.params), as_float64(state.target_params)
        state, metrics = step(state, jnp.asarray(views)[:, :, None])
        online, drawn_last = masks.at(count)

        # The target network draws masks of its own, after the online network.
        targets = check.targets(before, target, views, drawn_last)
        losses.append(check.loss(before, targets, views, online))
        np.testing.assert_allclose(metrics["loss"], losses[-1], rtol=1e-9)

        moments = as_float64(state.opt_state[0].mu)
        gradient = jax.tree.map(lambda now, then: (now - optim.beta1 * then) / (1 - optim.beta1), moments, first)
        total = math.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
        np.testing.assert_allclose(metrics["grad_norm"], total, rtol=1e-9)
        for _ in range(2):
            direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), before)
            near = [jax.tree.map(lambda leaf, way: leaf + sign * 1e-6 * way, before, direction) for sign in (1, -1)]  # noqa: B023
            slope = np.subtract(*(check.loss(params, targets, views, online) for params in near)) / 2e-6
            along = sum((a * b).sum() for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
            np.testing.assert_allclose(along, slope, rtol=1e-5, atol=1e-7 * total)

        rate = float(learning_rate(optim, steps=config.steps)(jnp.int32(count)))  # a float32, whose rounding would show
        np.testing.assert_allclose(rate, reference.learning_rate(count, optim, steps=config.steps), rtol=1e-6, atol=1e-10)
        update = partial(reference.adamw, step=count, rate=rate, config=optim)
        moved = jax.tree.map(update, before, gradient, first, second)
        after, first, second = (jax.tree.map(lambda leaf, place=place: leaf[place], moved, is_leaf=_is_triple) for place in range(3))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13), as_float64(state.params), after)
        keep = momenta[count + 1]
        expected = {name: jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, target[name], after[name]) for name in target}  # noqa: B023
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13), as_float64(state.target_params), expected)
    return losses


def _drawn(rng, path, leaf):
    """Weights, biases and positions that all matter; scales are about one."""
    return jnp.asarray((path[-1].key == "scale") + rng.normal(size=leaf.shape) / 3, jnp.float64)


def _is_triple(leaf):
    return isinstance(leaf, tuple)


@pytest.mark.parametrize("kind", list(RUNS))
def test_three_steps_follow_the_reference(kind, x64, monkeypatch):
    losses = three_steps(tiny(kind), monkeypatch)
    assert len(set(losses)) == 3


def test_every_kind_is_tested():
    assert set(RUNS) == set(OBJECTIVES)


def losses_of(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if "loss" in line])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A masked run from the command line, probed on the way."""
    folder = tmp_path_factory.mktemp("masked")
    command = ["pretrain", "--config=smoke", "--config.objective.kind=masked", "--config.evaluation.sources=", "--devices=1"]
    command += ["--config.run.probe=knn"]
    assert main([*command, "--config.encoder_microbatch_size=8", f"--workdir={folder}"]) == 0
    return command, folder


@pytest.mark.slow
def test_a_masked_run_learns_and_is_probed(run):
    _, folder = run
    losses, lines = losses_of(folder), (folder / "metrics.jsonl").read_text()
    assert losses[-1] < losses[0]
    assert lines.count('"probe_accuracy"') == 2
    spreads = [json.loads(line)["projection_std"] for line in lines.splitlines() if "projection_std" in line]
    assert min(spreads) > 0.05


@pytest.mark.slow
def test_a_masked_run_is_resumed_bit_for_bit(run, tmp_path):
    command, folder = run
    last = load_encoder(folder).variables
    (folder / "checkpoints" / "00000008").rename(tmp_path / "gone")
    assert main([*command, "--config.encoder_microbatch_size=8", f"--workdir={folder}"]) == 0
    jax.tree.map(np.testing.assert_array_equal, load_encoder(folder).variables, last)


@pytest.mark.slow
def test_the_encoder_of_a_masked_run_is_like_any_other(run, tmp_path):
    _, folder = run
    encoder, twin = load_encoder(folder), untrained_encoder(load_config("smoke"))
    assert jax.tree.map(np.shape, encoder.variables) == jax.tree.map(np.shape, twin.variables)
    encoder.save(tmp_path / "saved")
    x = np.random.default_rng(0).normal(size=(3, 100))
    np.testing.assert_array_equal(load_encoder(tmp_path / "saved").embed(x), encoder.embed(x))
    state = state_of(load_config("smoke", ["objective.kind=masked"]))
    jax.tree.map(np.testing.assert_array_equal, twin.variables, encoder_variables(state))  # as it starts


def state_of(config):
    network, tx = build_network(build_encoder(config.model), config.objective), make_optimizer(config.optim, steps=config.steps)
    views = jnp.zeros((2, 2, 1, config.length))
    return state_from_variables(jax.jit(network.init)(jax.random.key(config.seed), views), tx)


def test_chunks_do_not_change_a_masked_network():
    config = load_config("smoke", ["objective.kind=masked", "model.depth=1", "model.dropout=0.0", "length=96"])
    views = jax.random.normal(jax.random.key(0), (8, 2, 1, 96)).cumsum(-1)
    variables = jax.jit(build_network(build_encoder(config.model), config.objective).init)(jax.random.key(0), views)

    def loss(params, rows):
        network = build_network(build_encoder(config.model), config.objective, microbatches=Microbatches(rows))
        outputs = network.apply({**variables, "params": params}, views, train=True, rngs={"dropout": jax.random.key(5)})
        return masked_loss(outputs.predictions, outputs.targets)

    compute = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (whole, expected), (parts, gradient) = (compute(variables["params"], rows) for rows in (None, 4))
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()), gradient, expected)
    assert np.abs(expected["mask_token"]).max() > 0


def test_what_is_hidden_is_not_seen_and_what_is_predicted_is_hidden():
    """Values of hidden windows change the targets, and nothing that is made of the series."""
    config = load_config("smoke", ["objective.kind=masked", "model.depth=1", "model.dropout=0.0", "length=96"])
    network = build_network(build_encoder(config.model), config.objective)
    views = jax.random.normal(jax.random.key(0), (4, 2, 1, 96))
    variables = jax.jit(network.init)(jax.random.key(0), views)
    apply = jax.jit(lambda views: network.apply(variables, views, train=True, rngs={"dropout": jax.random.key(5)}))
    outputs = apply(views)
    assert outputs.predictions.shape == outputs.targets.shape == (4, 2, 3, 1, 18)
    truth = window_targets(normalise_windows(views, window=16))[:, :, 0]
    same = (np.asarray(truth)[:, :, :, None] == np.asarray(outputs.targets)[:, :, None, :, 0]).all(-1)
    hidden = same.any(-1)
    assert (hidden.sum(-1) == 3).all()
    other = jnp.where(jnp.repeat(hidden, 16, axis=-1)[:, :, None], 100 * views[::-1] + 7, views)
    np.testing.assert_allclose(apply(other).predictions, outputs.predictions, atol=1e-6)
    assert np.abs(apply(other).targets - outputs.targets).min() > 0
    seen = jnp.where(jnp.repeat(~hidden, 16, axis=-1)[:, :, None], 100 * views[::-1] + 7, views)
    assert np.abs(apply(seen).predictions - outputs.predictions).min() > 0


@pytest.mark.parametrize(("pooling", "width"), [("cls", 16), ("mean", 16), ("cls+mean", 32)])
def test_the_projector_sees_what_is_read(pooling, width):
    config = load_config("smoke", [f"objective.pooling={pooling}"])
    shapes = jax.eval_shape(build_network(build_encoder(config.model), config.objective).init, jax.random.key(0), jnp.zeros((2, 2, 1, 64)))
    assert shapes["params"]["projector"]["in"]["kernel"].shape == (width, 32)


def test_a_run_from_before_a_field_is_resumed(tmp_path):
    begun, same, other = ({"corpus": "", "config": to_dict(load_config("smoke", some))} for some in ([], [], ["objective.pooling=mean"]))
    for field in ("pooling", "mask_ratio", "mask_type"):
        del begun["config"]["objective"][field]
    _check_same_run(tmp_path, begun, same)
    with pytest.raises(InputError, match=r"objective.pooling was 'cls' there and is 'mean' now"):
        _check_same_run(tmp_path, begun, other)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.pooling=max"], r"objective.pooling is 'max'; choose one of cls, mean, cls\+mean"),
        (["objective.kind=masked", "objective.mask_ratio=0.0"], r"objective.mask_ratio is 0, so no window is predicted"),
        (["objective.kind=masked", "objective.mask_ratio=1.0"], r"objective.mask_ratio is 1.0; choose a number from 0 to below 1"),
        (["objective.kind=masked", "objective.mask_type=stripes"], r"objective.mask_type is 'stripes'; choose one of random, block"),
        (["objective.kind=vicreg"], "objective.kind is 'vicreg'; choose one of byol, simclr, simsiam, moco, masked"),
    ],
)
def test_mistakes_are_rejected(overrides, message):
    with pytest.raises(InputError, match=message):
        check_config(load_config("smoke", overrides))


def test_two_masks_at_once_are_rejected():
    config = load_config("smoke", ["objective.kind=masked", "model.mask_ratio=0.3"])
    with pytest.raises(InputError, match=r"model.mask_ratio is 0.3, and objective.kind 'masked' masks windows itself"):
        check_config(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.kind=masked", "was trained by masked, which the official implementation lacks"),
        ("objective.pooling=mean", "has pooling mean; the official implementation has only cls"),
    ],
)
def test_runs_that_the_official_implementation_lacks_are_not_converted(tmp_path, override, message):
    store = CheckpointManager(tmp_path)
    store.save({"step": np.zeros(1)}, step=1, metadata={"config": to_dict(load_config("smoke", [override]))})
    store.close()
    with pytest.raises(InputError, match=message):
        torch_state_of(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "model"),
    [
        pytest.param(["objective.kind=masked", "objective.mask_ratio=0.3"], {}, marks=pytest.mark.slow),
        (["objective.pooling=cls+mean"], {}),
        ([], {"mask_ratio": 0.4, "mask_strategy": "drop"}),
        pytest.param([], {"mask_ratio": 0.4}, marks=pytest.mark.slow),
    ],
)
def test_matmul_flops_match_the_formula(overrides, model):
    from benchmarks.matmul_formula import step_flops
    from nutime_jax.training.flops import count_matmuls
    from nutime_jax.training.input_pipeline import abstract_batch
    from nutime_jax.training.program import build_program

    config, mesh = load_config("smoke", ["model.depth=1", "model.dropout=0.0", "length=160", *overrides]), make_mesh(1)
    config = update(config, {"model": model})
    program = build_program(config, mesh=mesh)
    traced = program.step.trace(program.state, abstract_batch(config.data, mesh, batch_size=config.batch_size))
    assert count_matmuls(traced.jaxpr).flops == {"highest": step_flops(config)}


def test_a_masked_run_is_planned(capsys):
    assert main(["plan", "--config=smoke", "--config.objective.kind=masked", "--topology=h100:8"]) == 0
    assert "matmuls" in capsys.readouterr().out
