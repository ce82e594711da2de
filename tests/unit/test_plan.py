"""Counts of a plan, against programs counted by hand and against the training step that it plans."""

import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks.matmul_formula import step_flops
from nutime_jax.cli.main import main
from nutime_jax.config import load_config, update
from nutime_jax.data.corpus import open_corpus
from nutime_jax.distributed.chips import CHIPS, parse_topology
from nutime_jax.distributed.mesh import batch_sharding, make_mesh, replicated_sharding
from nutime_jax.errors import InputError
from nutime_jax.plan import step_cost as step_costs
from nutime_jax.plan.estimate import communication_seconds, estimate_step, make_plan, predict_scaling, render_plan, sum_collectives
from nutime_jax.plan.hlo import BETWEEN_SLICES, Array, Collective, analyse_hlo, parse_arrays
from nutime_jax.plan.step_cost import UPDATE_BYTES, StepCost
from nutime_jax.training.flops import count_matmuls
from nutime_jax.training.input_pipeline import CorpusSize, abstract_batch, make_input_pipeline
from nutime_jax.training.program import build_program

COMPILER = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the compiler for TPUs (libtpu) is not installed")

CYCLES = 10_556
"""Cycles per series, see `test_cycles_of_the_encoder_do_not_grow`."""

ENTRY = "ENTRY %main (e: f32[8,128]) -> f32[8,128] {"
PROGRAM = """HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%fused (p: f32[8,128]) -> f32[8,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %double = f32[8,128]{1,0:T(8,128)} add(%p, %p)
}

%condition (c: (s32[], f32[8,128])) -> pred[] {
  %c = (s32[], f32[8,128]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(3)
  %counter = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%counter, %limit), direction=LT
}

%body (d: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %d = (s32[], f32[8,128]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%d), index=0
  %x = f32[8,128]{1,0} get-tuple-element(%d), index=1
  %y = f32[8,128]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"50"}}
  %mean = f32[128]{0} all-reduce(%y), replica_groups={{0,1,2,3}}, to_apply=%add, metadata={op_name="jvp()/projector/norm/reduce_sum"}
  ROOT %next = (s32[], f32[8,128]{1,0}) tuple(%n, %y)
}

ENTRY %main (e: f32[8,128]) -> f32[8,128] {
  %e = f32[8,128]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,128]{1,0}) tuple(%zero, %e)
  %loop = (s32[], /*index=1*/f32[8,128]{1,0}) while(%start), condition=%condition, body=%body
  %z = f32[8,128]{1,0} get-tuple-element(%loop), index=1
  %copy = f32[8,128]{1,0} copy(%z)
  %both = (f32[4]{0}, f32[]) all-reduce(%copy, %zero), replica_groups=mesh['data'=4,'fsdp'=2] {'data','fsdp'}, to_apply=%add
  %one = f32[4]{0} get-tuple-element(%both), index=0, metadata={op_name="transpose(jvp())/predictor/in/dot_general"}
  %two = f32[] get-tuple-element(%both), index=1, metadata={op_name="jvp()/reduce_sum"}
  %gathered = (f32[2]{0}, f32[16]{0}) all-gather-start(%one), replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %out = f32[8,128]{1,0} copy(%copy)
}
"""


def test_loops_are_counted_by_their_trips():
    counts = analyse_hlo(PROGRAM)
    assert counts.unknown_loops == 0
    assert counts.cycles == 3 * 50
    array, small = 8 * 128 * 4, 128 * 4
    body = 2 * array + (array + small)  # the fusion, and the reduction
    inside = 2 * array  # the result of the fusion stays on the chip, where the reduction reads it
    rest = 2 * array + (array + 4 + 16 + 4) + (8 + 64) + 2 * array
    condition = 4 + 4 + 1
    assert counts.hbm_ratio == pytest.approx((rest + 3 * (body - inside + condition)) / (rest + body + condition))
    assert set(counts.collectives) == {
        Collective("all-reduce", small, 4, 3, "jvp()/projector/norm/reduce_sum"),
        Collective("all-reduce", 16, 8, 1, "transpose(jvp())/predictor/in/dot_general"),
        Collective("all-reduce", 4, 8, 1, "jvp()/reduce_sum", launches=False),
        Collective("all-gather", 64, 8, 1, ""),
    }
    assert sum_collectives(counts.collectives) == {
        "all-reduce of BatchNorm statistics, 3 times": {"arrays": 1, "bytes": small, "times": 3},
        "all-gather of metrics": {"arrays": 1, "bytes": 64, "times": 1},
        "all-reduce of gradients": {"arrays": 1, "bytes": 16, "times": 1},
        "all-reduce of metrics": {"arrays": 1, "bytes": 4, "times": 1},
    }


def test_loops_of_unknown_length_are_counted():
    counts = analyse_hlo(PROGRAM.replace("constant(3)", "parameter(0)"))
    assert (counts.unknown_loops, counts.cycles) == (1, 50)
    assert analyse_hlo(PROGRAM.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')).cycles == 5 * 50


def test_reductions_between_slices_are_transfers_of_the_host_over_the_network():
    """XLA sends the part of each chip through its host, several arrays at once."""
    target = '_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"'
    part = "%part{} = (f32[1000]{{0}}, u32[], token[]) recv(%zero), frontend_attributes={{{}}}, backend_config={{AGGREGATE_STATUS_{}}}"
    parts = [part.format(i, target, status) for i, status in enumerate(("DEFER", "ISSUE"))]
    host = "%other = (f32[9]{0}, u32[], token[]) recv(%zero), is_host_transfer=true"
    counts = analyse_hlo(PROGRAM.replace(ENTRY, "\n  ".join([ENTRY, *parts, host])))
    found = [collective for collective in counts.collectives if collective.kind.endswith(BETWEEN_SLICES)]
    assert found == [Collective("all-reduce between slices", 4000, 2, 1, "", launches=started) for started in (False, True)]
    chip = parse_topology("2*v5e:2x2").chip
    assert communication_seconds(found, chip, links=1.0, slice_size=4) == pytest.approx(2 * 4000 / chip.network + 2 * chip.network_hop)


def test_arrays_have_the_bytes_of_their_elements():
    arrays = parse_arrays("(bf16[2,3]{1,0:T(8,128)(2,1)}, /*index=1*/pred[5]{0:T(128)S(1)}, s32[], token[])")
    assert arrays == [Array(12, True), Array(5, False), Array(4, True), Array(0, True)]


def test_a_compiled_program_is_parsed():
    mesh = make_mesh(2)

    def total(x):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry) + (x * carry[0]).sum(0), None), jnp.zeros(16), None, length=5)[0]

    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=batch_sharding(mesh))
    counts = analyse_hlo(jax.jit(total, out_shardings=replicated_sharding(mesh)).lower(x).compile().as_text())
    assert [found[:4] for found in counts.collectives] == [("all-reduce", 64, 2, 5)]
    assert counts.hbm_ratio > 1.5


@pytest.fixture(scope="module")
def wide():
    """A step that consists mostly of matmuls, before it is compiled."""
    config = load_config("smoke", ["model.dropout=0.0", "model.width=128", "model.mlp_dim=256", "model.num_heads=8"])
    return config, trace(config)


def trace(config):
    mesh = make_mesh(1)
    program = build_program(config, mesh=mesh)
    return program.step.trace(program.state, abstract_batch(config.data, mesh, batch_size=config.batch_size))


def test_matmul_flops_match_the_formula_and_the_compiler(wide):
    config, traced = wide
    assert count_matmuls(traced.jaxpr).flops == {"highest": step_flops(config)}
    # The compiler also counts additions, normalisation and activations: 8 % of it.
    assert 1 < traced.lower().cost_analysis()["flops"] / step_flops(config) < 1.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"pos_embedding": "rotary", "stride": 8},
        {"pos_embedding": "learned", "extra_window_sizes": (8, 32), "stride": 4},
        {"pos_embedding": "none", "backbone": "resnet", "stride": 4},
    ],
    ids=str,
)
def test_matmul_flops_of_other_tokens_and_blocks_match_the_formula(model):
    config = update(load_config("smoke", ["model.dropout=0.0"]), {"model": model})
    assert count_matmuls(trace(config).jaxpr).flops == {"highest": step_flops(config)}


@pytest.mark.slow
def test_microbatches_and_recomputation_are_counted():
    config = load_config("smoke", ["grad_accum_steps=2", "remat=full"])
    jaxpr = trace(config).jaxpr
    every, once = count_matmuls(jaxpr), count_matmuls(jaxpr, loops=False)
    assert every.flops["highest"] == 2 * once.flops["highest"]
    # One more forward pass of the online network's blocks, to four.
    assert 1.1 < every.flops["highest"] / step_flops(config) < 1.25


def test_precisions_are_counted_separately():
    def two(x):
        return jnp.matmul(x, x) + jnp.matmul(x, x, precision="highest") + jnp.matmul(x, x, precision="high")

    flops = count_matmuls(jax.make_jaxpr(two)(jnp.zeros((4, 4)))).flops
    assert flops == {"default": 128, "highest": 128, "high": 128}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e", "Topology 'v5e' is malformed. Write chip:shape"),
        ("v5e:0x4", "is malformed"),
        ("v9:4x4", "has an unknown chip. Choose one of v4, v5e"),
        ("v5e:4x4x4", "has 3 axes. A slice of v5e has 2, for example v5e:4x4"),
        ("v5e:16x32", "has 512 chips per slice. A slice of v5e has at most 256"),
        ("h100:2x4", "has 2 axes. A slice of h100 has 1"),
        ("two*v5e:4x4", "is malformed. Write slices"),
        ("2*h100:8", "has several slices. Write the number of all GPUs"),
    ],
)
def test_malformed_topologies_are_rejected(text, message):
    with pytest.raises(InputError, match=message):
        parse_topology(text)


def test_axes_that_do_not_close_to_a_ring_have_half_the_bandwidth():
    whole, part = (parse_topology(text) for text in ("v5e:16x16", "v5e:4x4"))
    assert (whole.chips, part.chips, part.links) == (256, 16, whole.links / 2)
    assert parse_topology("v5p:8x8x8").links == CHIPS["v5p"].links
    two = parse_topology("2*v5e:4x4")
    assert (two.chips, two.slice_size, two.links) == (32, 16, part.links)


def test_a_step_is_the_longer_of_matmuls_and_hbm_traffic_plus_communication():
    topology = parse_topology("v5e:16x16")
    topology = topology._replace(chip=topology.chip._replace(hop=0.0))
    reduced = Collective("all-reduce", 10**9, 256, 2, "")
    found = estimate_step(StepCost({"default": 197e9, "highest": 197e9}, 819e6, (reduced,), 0.0, cycles=1.5e6), topology)
    assert found.matmuls == pytest.approx(1e-3 + 6e-3)
    assert found.memory == pytest.approx(1e-3)
    assert found.communication == pytest.approx(2 * 2 * 1e9 * 255 / 256 / 200e9)
    assert found.schedule == pytest.approx(1e-3)
    assert found.roofline == found.step == pytest.approx(found.matmuls + found.communication)
    assert found.bound == "matmuls"
    assert found._replace(schedule=1.0).step == pytest.approx(1 + found.communication)
    assert found.mfu == pytest.approx(found.matmuls / found.step)


def test_communication_between_nodes_uses_the_network():
    work = StepCost({}, 0.0, (Collective("all-reduce", 8 * 10**9, 16, 1, ""),), 0.0)
    inside, outside = 2 * 8e9 * 7 / 8 / 450e9, 2 * 1e9 * 1 / 2 / 50e9
    topology = parse_topology("h100:16")
    latency = 2 * (8 / 2 * topology.chip.hop + topology.chip.network_hop)
    assert estimate_step(work, topology).communication == pytest.approx(inside + outside + latency)


def test_every_instruction_has_a_latency_and_arrays_sent_with_it_have_none():
    topology = parse_topology("2*v5e:4x4")
    one = [Collective("all-reduce", 0, 32, 3, ""), Collective("all-reduce", 0, 32, 3, "", launches=False)]
    found = estimate_step(StepCost({}, 0.0, tuple(one), 0.0), topology).communication
    assert found == pytest.approx(3 * 2 * (2 * 4 / 2 * topology.chip.hop + topology.chip.network_hop))


def test_scaling_keeps_the_update_and_divides_the_rest():
    chip, parameters = CHIPS["v5e"]._replace(hop=0.0, network_hop=0.0), 10**6
    work = StepCost(
        {"default": 0.0}, 819e6 + UPDATE_BYTES * parameters, (Collective("all-reduce", 4 * parameters, 16, 1, ""),), 0.0, parameters
    )
    weak = predict_scaling(work, chip, rows=16, chips=(1, 256, 512))
    alone = 1e-3 + UPDATE_BYTES * parameters / chip.bandwidth
    assert (weak[0].seconds, weak[0].communication, weak[0].efficiency) == (pytest.approx(alone), 0, 1)
    reduced = 2 * 4e6 * 255 / 256 / 200e9
    assert weak[1].seconds == pytest.approx(alone + reduced)
    assert weak[2].communication == pytest.approx(reduced + 2 * 4e6 / 256 / 2 / chip.network)
    assert weak[2].series_per_second == pytest.approx(16 * 512 / weak[2].seconds)
    strong = predict_scaling(work, chip, rows=16, chips=(1, 256), batch=256)
    assert [point.rows for point in strong] == [256, 1]
    assert strong[0].efficiency == 1
    assert strong[1].efficiency == pytest.approx(strong[0].seconds / 256 / strong[1].seconds)
    slow = predict_scaling(work._replace(cycles=3e6), chip, rows=16, chips=(1,), batch=32)
    update = UPDATE_BYTES * parameters / chip.bandwidth
    assert slow[0].seconds == pytest.approx(update + 2 * (2e-3 - update))


@pytest.mark.parametrize(
    "overrides", [[], ["data.on_device=true"], ["data.synthetic_fraction=1.0", "batch_size=64"], ["data.synthetic_fraction=0.5"]]
)
def test_the_batch_that_is_planned_is_the_batch_that_is_trained_on(overrides, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "plan"
    config = load_config("smoke", ["data.max_length=512", *overrides])
    corpus = open_corpus(config.data.sources, data_dir=folder, max_length=512)
    lengths = [part.card["max_length"] for part in corpus.parts]
    config = update(config, {"data": {"max_length": max(lengths)}})  # what a plan takes it to be
    size = CorpusSize(corpus.num_points, len(corpus)) if config.data.on_device else None
    mesh = make_mesh(2)
    real, told = (
        next(make_input_pipeline(config.data, corpus, mesh, batch_size=config.batch_size, seed=config.seed, steps=config.steps).iterate(0)),
        abstract_batch(config.data, mesh, batch_size=config.batch_size, size=size),
    )
    assert jax.tree.structure(real) == jax.tree.structure(told)
    for one, other in zip(jax.tree.leaves(real), jax.tree.leaves(told), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (other.shape, other.dtype, other.sharding)


@pytest.mark.slow
def test_gpu_steps_are_analysed(tmp_path, capsys):
    file = tmp_path / "plan.json"
    overrides = ["--config.data.on_device=true", "--corpus=1000000,5000", "--config.batch_size=4096"]
    assert main(["plan", "--config=smoke", "--topology=h100:16", "--scaling", f"--json={file}", *overrides]) == 0
    text, plan = capsys.readouterr().out, json.loads(file.read_text())
    config = load_config("smoke", ["batch_size=4096"])
    assert plan["matmul_flops"] == {"highest": step_flops(config) / 16}
    assert plan["temporaries_bytes"] is None
    parameters = plan["collectives"]["all-reduce of gradients"]["bytes"] / 4
    corpus = 4 * (1000000 + 3 * 5000 + 4096)
    assert plan["arguments_bytes"] > 5 * 4 * 0.8 * parameters + corpus  # both networks, without a second predictor, and moments
    seconds = plan["seconds"]["roofline"]
    assert plan["roofline"]["chip_hours"] == pytest.approx(16 * seconds * config.steps / 3600)
    for line in plan["scaling"].values():
        assert [point["chips"] for point in line] == [1, 4, 16, 64, 256, 1024, 4096]
    for words in ("smoke on h100:16: 16 chips, analysed", "all-reduce of gradients", "HBM needed", "chip-hours", "4096 series in total"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=h100:3"], "batch_size 16 is not divisible by 3 chips. Choose 15."),
        (["--topology=h100:8", "--corpus=12"], "--corpus is '12'"),
        (["--topology=h100:8", "--config.data.on_device=true"], "the size of the corpus is not known"),
        (["--topology=h100:8", "--config.steps=0"], "steps is 0"),
        (["--topology=h100:8", "--json=/nowhere/plan.json"], "Cannot write /nowhere/plan.json (its folder does not exist)"),
        (["--topology=tpu"], "Topology 'tpu' is malformed"),
    ],
)
def test_impossible_plans_are_rejected(arguments, message, capfd):
    assert main(["plan", "--config=smoke", *arguments]) == 2
    assert message in capfd.readouterr().err


def test_without_the_compiler_tpus_are_rejected(monkeypatch):
    monkeypatch.setattr(step_costs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'nutime_jax\[tpu\]'. It needs no TPU"):
        step_costs.compile_step(load_config("smoke"), parse_topology("v5e:2x2"))


class Full:
    """A step that does not fit the memory."""

    state = None

    @property
    def step(self):
        return self

    def trace(self, state, batch):
        return self

    lower = compile = lambda self: self.fail()

    def fail(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 20.00G of 15.75G hbm.\nLargest allocations: ...")


def test_a_batch_that_does_not_fit_is_rejected(monkeypatch):
    monkeypatch.setattr(step_costs, "tpu_devices", lambda topology: jax.devices()[:4])
    monkeypatch.setattr(step_costs, "build_program", lambda *args, **kwargs: Full())
    message = r"Batch size 16 does not fit v5e:2x2 \(Used 20.00G of 15.75G hbm\)\. Choose a smaller batch"
    with pytest.raises(InputError, match=message):
        step_costs.compile_step(load_config("smoke"), parse_topology("v5e:2x2"))


@COMPILER
@pytest.mark.parametrize("text", ["v4:4x4x4", "v5e:4x4", "v5p:8x8x8", "v6e:16x16", "2*v4:4x4x4", "2*v5e:4x4", "2*v5p:4x4x4", "2*v6e:8x8"])
def test_every_topology_has_a_mesh(text):
    topology = parse_topology(text)
    devices = step_costs.tpu_devices(topology)
    for fsdp in (1, 2, 4, 16):
        mesh = make_mesh(devices, fsdp=fsdp)
        assert mesh.shape == {"data": topology.chips // fsdp, "fsdp": fsdp}
        slices = [{getattr(device, "slice_index", 0) for device in row} for row in mesh.devices]
        assert all(len(row) == 1 for row in slices)  # parameters are gathered within a slice
        assert slices == sorted(slices, key=min)
    with pytest.raises(InputError, match="choose a divisor of the number of devices"):
        make_mesh(devices, fsdp=2 * topology.slice_size)


@COMPILER
@pytest.mark.thorough
def test_cycles_of_the_encoder_do_not_grow():
    """The compiler's estimate for v5e of one full block and the last one, forward and backward, per series (libtpu 0.0.42)."""
    from nutime_jax.models.network import build_encoder

    model = load_config("nutime_paper", ["model.depth=2"]).model
    network, views = build_encoder(model, platform="tpu"), 256
    sharding = jax.sharding.SingleDeviceSharding(step_costs.tpu_devices(parse_topology("v5e:2x2"))[0])
    on_chip = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    x = jax.ShapeDtypeStruct((views, 1, 512), jnp.float32, sharding=sharding)
    variables = jax.tree.map(on_chip, jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1, 512))))

    def loss(params, constants, x):
        rngs = {"dropout": jax.random.key(1)}
        encoding = network.apply({"params": params, "constants": constants}, x, train=True, num_output_tokens=1, rngs=rngs)
        return jnp.square(encoding.normalised[:, 0]).sum()

    compiled = jax.jit(jax.grad(loss)).lower(variables["params"], variables["constants"], x).compile()
    assert analyse_hlo(compiled.as_text()).cycles / views == pytest.approx(CYCLES, rel=0.1)


@COMPILER
def test_a_step_compiled_for_a_slice_reduces_gradients_once_and_gathers_nothing():
    plans = [
        make_plan(load_config("smoke", [f"batch_size={size}"]), parse_topology(text)) for text, size in (("v5e:2x2", 16), ("v5e:4x4", 64))
    ]
    small, large = plans
    # Four rows per chip: no cost per chip grows with the total batch.
    for name in ("bytes_accessed", "temporaries_bytes", "arguments_bytes", "flops"):
        assert math.isclose(small[name], large[name], rel_tol=0.01), name
    config = load_config("smoke")
    params = build_program(config, mesh=make_mesh(1)).state.params
    size = lambda tree: 4 * sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert set(large["collectives"]) == {"all-reduce of gradients", "all-reduce of BatchNorm statistics", "all-reduce of metrics"}
    # Each once. Those of BatchNorm's parameters are among its statistics; those of the NME are three values per scale.
    reduced = size(params) - size([params[name]["norm"] for name in ("projector", "predictor")]) + 3 * 4 * 9
    assert large["collectives"]["all-reduce of gradients"] == {
        **large["collectives"]["all-reduce of gradients"],
        "bytes": reduced,
        "times": 1,
    }
    assert "fits" in render_plan(large)
