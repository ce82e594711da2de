"""What a step does is pinned, so that it cannot grow slower unseen: FLOPs, memory, exchanges between devices, compilations.

None of it is timed. `python -m benchmarks.speed --against=benchmarks/results/speed.json` times.
"""

import jax
import numpy as np
import pytest

from benchmarks.matmul_formula import embedding_flops, step_flops
from nutime_jax import embedding
from nutime_jax.config import load_config
from nutime_jax.distributed.mesh import make_mesh
from nutime_jax.loading import untrained_encoder
from nutime_jax.models.stem import POSITIONS
from nutime_jax.plan.hlo import analyse_hlo
from nutime_jax.training.flops import count_matmuls
from nutime_jax.training.input_pipeline import CorpusSize, abstract_batch, make_input_pipeline
from nutime_jax.training.program import build_program

pytestmark = pytest.mark.optimised


def program_of(name, *overrides, devices=1):
    config, mesh = load_config(name, list(overrides)), make_mesh(devices)
    return config, build_program(config, mesh=mesh), abstract_batch(config.data, mesh, batch_size=config.batch_size)


def test_the_published_step_takes_1266_megaflop_a_series():
    config, program, batch = program_of("nutime_paper", "batch_size=256", "encoder_microbatch_size=512")
    flops = sum(count_matmuls(program.step.trace(program.state, batch).jaxpr).flops.values())
    assert flops == step_flops(config)
    assert flops / 256 == pytest.approx(1.2655e9, rel=0.001)


def test_chunks_compute_one_forward_pass_of_the_encoder_again():
    config, program, batch = program_of("nutime_paper", "batch_size=256", "encoder_microbatch_size=32")
    flops = sum(count_matmuls(program.step.trace(program.state, batch).jaxpr).flops.values())
    again = 2 * 256 * embedding_flops(untrained_encoder(config).network, length=config.length, last=1)
    assert flops == pytest.approx(step_flops(config) + again, rel=0.01)


def test_a_series_of_512_points_is_encoded_in_170_megaflop():
    encoder = untrained_encoder(load_config("nutime_paper"))
    traced = jax.make_jaxpr(encoder.network.apply)(encoder.variables, jax.ShapeDtypeStruct((1, 1, 512), np.float32))
    model = encoder.config.model
    stem = 2 * len(model.stem_dilations) * POSITIONS * model.window_size * model.width  # traced here, not compiled for other poolings
    flops = sum(count_matmuls(traced.jaxpr).flops.values()) - stem
    assert flops == embedding_flops(encoder.network, length=512) == pytest.approx(1.7e8, rel=0.02)


def test_memory_is_that_of_a_chunk_and_devices_exchange_gradients_and_statistics_alone():
    _, program, batch = program_of("smoke", "model.depth=1", "batch_size=256", "encoder_microbatch_size=64", devices=8)
    compiled = program.step.lower(program.state, batch).compile()
    _, whole, _ = program_of("smoke", "model.depth=1", "batch_size=256", "encoder_microbatch_size=512", devices=8)
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    assert temporaries < 0.5 * whole.step.lower(whole.state, batch).compile().memory_analysis().temp_size_in_bytes
    exchanges = analyse_hlo(compiled.as_text()).collectives
    assert {one.kind for one in exchanges} == {"all-reduce"}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(program.state.params))
    reduced = sum(one.size * one.times for one in exchanges)
    # Gradients of the encoder are reduced after each of eight chunks, those of heads once; BatchNorm's statistics are small.
    chunked = sum(leaf.size for leaf in jax.tree.leaves(program.state.params["encoder"]))
    assert 4 * (parameters + 6 * chunked) < reduced < 1.1 * 4 * (parameters + 7 * chunked)


@pytest.mark.slow
def test_every_device_computes_its_rows_of_a_corpus_that_all_devices_hold():
    config, mesh = load_config("smoke", ["model.depth=1", "batch_size=64", "data.on_device=true"]), make_mesh(8)
    program, batch = build_program(config, mesh=mesh), abstract_batch(config.data, mesh, batch_size=64, size=CorpusSize(1000, 10))
    traced = program.step.trace(program.state, batch)
    matmuls = sum(count_matmuls(traced.jaxpr).flops.values())
    assert traced.lower().compile().cost_analysis()["flops"] < 0.3 * matmuls


def test_a_run_compiles_one_step_and_embedding_a_program_an_eighth():
    config = load_config("smoke", ["model.depth=1", "data.synthetic_fraction=1", "steps=4"])
    mesh = make_mesh(1)
    feed = make_input_pipeline(config.data, None, mesh, batch_size=config.batch_size, seed=config.seed, steps=config.steps)
    program = build_program(config, mesh=mesh)
    state = program.init()
    for batch in feed.iterate(0):
        state, _ = program.step(state, batch)
    assert program.step._cache_size() == 1

    embedding._encode.clear_cache()
    encoder, rng = untrained_encoder(config), np.random.default_rng(0)
    for cases in (1, 2, 5, 16, 30, 64, 65, 100, 129):
        encoder.embed([rng.normal(size=rng.integers(10, 400)) for _ in range(cases)], batch_size=64)
    assert embedding._encode._cache_size() == 2  # 8 and 64 rows
