"""The contrastive loss, and three steps with it, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nutime_jax.config import load_config
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.errors import InputError
from nutime_jax.objectives import OBJECTIVES, make_objective
from nutime_jax.objectives.contrastive import info_nce_loss
from nutime_jax.training.loop import pretrain
from nutime_jax.training.program import build_program
from tests import reference


def test_the_loss_follows_the_reference(x64):
    p, t = np.random.default_rng(0).normal(size=(2, 8, 2, 16))
    ours = info_nce_loss(jnp.asarray(p), jnp.asarray(t), temperature=0.3)
    np.testing.assert_allclose(ours, reference.info_nce_loss(p, t, temperature=0.3), rtol=1e-12)


def test_the_gradient_follows_differences_of_the_reference(x64):
    z = np.random.default_rng(1).normal(size=(3, 2, 4))
    ours = jax.grad(lambda z: info_nce_loss(z, z, temperature=0.5))(jnp.asarray(z))
    theirs = reference.differences(lambda z: reference.info_nce_loss(z, z, temperature=0.5), z)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_the_loss_is_that_of_chance_for_equal_projections_and_finite_for_zeros():
    assert float(info_nce_loss(jnp.ones((8, 2, 4)), jnp.ones((8, 2, 4)), temperature=0.1)) == pytest.approx(np.log(15), rel=1e-5)
    zeros = jnp.zeros((8, 2, 4))
    assert np.isfinite(jax.grad(lambda z: info_nce_loss(z, z, temperature=0.01))(zeros)).all()


def test_a_run_is_resumed(tmp_path):
    rest = ["model.depth=1", "steps=6", "run.checkpoint_every=3", "run.probe_every=0", "data.sources=ArrowHead"]
    config = load_config("smoke", ["objective.kind=simclr", *rest])
    whole = pretrain(config, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "00000006").rename(tmp_path / "gone")
    assert (tmp_path / "run" / "checkpoints" / "00000003").is_dir()
    resumed = pretrain(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole.params), jax.device_get(resumed.params))


def test_an_unknown_objective_is_rejected():
    config = load_config("smoke", ["objective.kind=vicreg"])
    with pytest.raises(InputError, match=f"objective.kind is 'vicreg'; choose one of {', '.join(OBJECTIVES)}"):
        make_objective(config.objective)
    with pytest.raises(InputError, match=r"objective.temperature is 0.0; choose a number above 0"):
        pretrain(load_config("smoke", ["objective.temperature=0.0"]), "nowhere")
    with pytest.raises(InputError, match=r"grad_accum_steps is 2, and objective.kind 'simclr' compares all series of a batch"):
        pretrain(load_config("smoke", ["objective.kind=simclr", "grad_accum_steps=2"]), "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(OBJECTIVES))
def test_matmul_flops_match_the_formula(kind):
    from benchmarks.matmul_formula import step_flops
    from nutime_jax.training.flops import count_matmuls
    from nutime_jax.training.input_pipeline import abstract_batch

    config, mesh = load_config("smoke", [f"objective.kind={kind}", "model.depth=1", "model.dropout=0.0"]), make_mesh(1)
    program = build_program(config, mesh=mesh)
    traced = program.step.trace(program.state, abstract_batch(config.data, mesh, batch_size=config.batch_size))
    assert count_matmuls(traced.jaxpr).flops == {"highest": step_flops(config)}
