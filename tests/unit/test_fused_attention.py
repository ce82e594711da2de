"""The attention kernel agrees with attention by matmuls, dropout masks included."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nutime_jax.config import load_config
from nutime_jax.distributed.chips import parse_topology
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.models.fused_attention import KernelOptions, fits, fused_attention
from nutime_jax.models.layers import Attention
from nutime_jax.plan.step_cost import tpu_devices
from nutime_jax.training.input_pipeline import abstract_batch
from nutime_jax.training.program import build_program


@pytest.mark.parametrize(
    ("num_heads", "head_dim", "tokens", "batch", "train"),
    [
        (4, 32, 9, 2, True),
        pytest.param(4, 64, 33, 16, True, marks=pytest.mark.slow),
        pytest.param(4, 64, 64, 2, False, marks=pytest.mark.slow),
        pytest.param(1, 128, 5, 3, True, marks=pytest.mark.slow),
    ],
)
def test_outputs_and_gradients_are_those_of_matmuls(num_heads, head_dim, tokens, batch, train):
    assert fits(tokens=tokens, num_heads=num_heads, head_dim=head_dim)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(batch, tokens, 16)), jnp.float32)
    # The masks of matmuls for TPUs have the order of the kernel, which is interpreted on a CPU.
    kernel = Attention(num_heads, head_dim, 0.3, platform="cpu", kernel_mesh=make_mesh(1))
    matmuls = Attention(num_heads, head_dim, 0.3, platform="tpu")
    params = matmuls.init(jax.random.key(0), x, train=False)

    @jax.jit
    def outputs_and_gradients(params, x):
        def loss(params, x, module):
            y = module.apply(params, x, train=train, rngs={"dropout": jax.random.key(1)})
            return jnp.square(y).sum(), y

        with jax.default_matmul_precision("highest"):
            return [jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x, module) for module in (kernel, matmuls)]

    found, expected = outputs_and_gradients(params, x)
    assert float(jnp.abs(expected[1]).max()) > 0.1
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6 * float(jnp.abs(two).max()))


@pytest.mark.parametrize(("num_heads", "head_dim", "tokens"), [(8, 64, 65), (2, 48, 33), (3, 32, 9), (1, 256, 33)])
def test_other_sizes_do_not_fit(num_heads, head_dim, tokens):
    assert not fits(tokens=tokens, num_heads=num_heads, head_dim=head_dim)


def test_each_device_computes_its_own_series():
    mesh = make_mesh(2)
    rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    qkv = jax.device_put(np.random.default_rng(0).normal(size=(16, 9, 384)).astype(np.float32), rows)
    words = jax.random.bits(jax.random.key(1), (2, 16), jnp.uint32)

    def loss(qkv, mesh):
        return jnp.square(fused_attention(qkv, words, KernelOptions(32, 0.2, mesh=mesh, interpret=True))).sum()

    compiled = jax.jit(partial(jax.grad(loss), mesh=mesh)).lower(qkv).compile()
    assert compiled.output_shardings.is_equivalent_to(rows, 3)
    assert not {"all-gather", "all-reduce", "all-to-all"} & set(compiled.as_text().replace("(", " ").split())
    alone = jax.grad(loss)(jnp.asarray(np.asarray(qkv)), make_mesh(1))
    np.testing.assert_allclose(compiled(qkv), alone, atol=1e-5)


def test_a_run_uses_the_kernel_for_all_blocks_but_the_last():
    """The last block returns one token. Online and target network, forward and backward: three kernels per block."""
    config = load_config("smoke", ["attention=fused", "model.num_heads=2", "model.head_dim=64", "model.depth=3"])
    mesh = make_mesh(1)
    program = build_program(config, mesh=mesh)
    batch = abstract_batch(config.data, mesh, batch_size=config.batch_size, size=None)
    assert str(program.step.trace(program.state, batch).jaxpr).count("pallas_call") == 3 * 2


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the compiler for TPUs")
def test_the_compiler_for_tpus_accepts_the_kernel():
    (device,) = tpu_devices(parse_topology("v5e:2x2"))[:1]
    mesh = make_mesh([device])
    rows, columns = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((mesh.axis_names,), (None, mesh.axis_names)))
    qkv = jax.ShapeDtypeStruct((16, 33, 1536), jnp.float32, sharding=rows)
    words = jax.ShapeDtypeStruct((2, 16), jnp.uint32, sharding=columns)
    options = KernelOptions(64, 0.1, mesh=mesh, interpret=False)
    gradient = jax.grad(lambda qkv, words: jnp.square(fused_attention(qkv, words, options)).sum())
    assert jax.jit(gradient).lower(qkv, words).compile().as_text().count("tpu_custom_call") >= 2
