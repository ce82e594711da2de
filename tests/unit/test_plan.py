"""What a plan counts, against programs that can be counted by hand, and against the training it is a plan of."""

import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import pytest

from nutime_jax.cli.main import main
from nutime_jax.config import load_config, update
from nutime_jax.data.corpus import open_corpus
from nutime_jax.distributed.mesh import make_mesh, replicated, split
from nutime_jax.errors import InputError
from nutime_jax.plan import work as planned
from nutime_jax.plan.chips import CHIPS, parse_topology
from nutime_jax.plan.hlo import Array, Collective, count, read_arrays
from nutime_jax.plan.products import count_products, products_by_formula
from nutime_jax.plan.roofline import UPDATE, Work, estimate, scale
from nutime_jax.plan.table import render_plan, sum_exchanges
from nutime_jax.training.input_pipeline import CorpusSize, describe_batch, make_feed, make_views
from nutime_jax.training.program import build_program

COMPILER = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the compiler for TPUs (libtpu) is not installed")

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


def test_a_program_is_counted_with_its_loops():
    counts = count(PROGRAM)
    assert counts.unknown == 0
    assert counts.cycles == 3 * 50
    array, small = 8 * 128 * 4, 128 * 4
    body = 2 * array + (array + small)  # the fusion, and the reduction
    inside = 2 * array  # what the fusion gives lies on the chip, where the reduction finds it
    rest = 2 * array + (array + 4 + 16 + 4) + (8 + 64) + 2 * array
    condition = 4 + 4 + 1
    assert counts.traffic == pytest.approx((rest + 3 * (body - inside + condition)) / (rest + body + condition))
    assert set(counts.collectives) == {
        Collective("all-reduce", small, 4, 3, "jvp()/projector/norm/reduce_sum"),
        Collective("all-reduce", 16, 8, 1, "transpose(jvp())/predictor/in/dot_general"),
        Collective("all-reduce", 4, 8, 1, "jvp()/reduce_sum"),
        Collective("all-gather", 64, 8, 1, ""),
    }
    assert sum_exchanges(counts.collectives) == {
        "all-reduce of BatchNorm's statistics, 3 times": {"arrays": 1, "bytes": small, "times": 3},
        "all-gather of what is logged": {"arrays": 1, "bytes": 64, "times": 1},
        "all-reduce of gradients": {"arrays": 1, "bytes": 16, "times": 1},
        "all-reduce of what is logged": {"arrays": 1, "bytes": 4, "times": 1},
    }


def test_a_loop_of_unknown_length_is_told():
    counts = count(PROGRAM.replace("constant(3)", "parameter(0)"))
    assert (counts.unknown, counts.cycles) == (1, 50)
    assert count(PROGRAM.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')).cycles == 5 * 50


def test_arrays_have_the_bytes_of_their_elements():
    arrays = read_arrays("(bf16[2,3]{1,0:T(8,128)(2,1)}, /*index=1*/pred[5]{0:T(128)S(1)}, s32[], token[])")
    assert arrays == [Array(12, True), Array(5, False), Array(4, True), Array(0, True)]


def test_a_real_program_is_read():
    mesh = make_mesh(2)

    def total(x):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry) + (x * carry[0]).sum(0), None), jnp.zeros(16), None, length=5)[0]

    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=split(mesh))
    counts = count(jax.jit(total, out_shardings=replicated(mesh)).lower(x).compile().as_text())
    assert [(one.kind, one.size, one.group, one.times) for one in counts.collectives] == [("all-reduce", 64, 2, 5)]
    assert counts.traffic > 1.5


@pytest.fixture(scope="module")
def wide():
    """A step of which most is matrix products, before it is compiled."""
    config = load_config("smoke", ["model.dropout=0.0", "model.width=128", "model.mlp_dim=256", "model.num_heads=8"])
    return config, trace(config)


def trace(config):
    mesh = make_mesh(1)
    program = build_program(config, views=make_views(config), mesh=mesh)
    return program.step.trace(program.state, describe_batch(config, mesh))


def test_products_are_those_of_the_formula_and_of_the_compiler(wide):
    config, traced = wide
    products = count_products(traced.jaxpr)
    assert products.flops == {"highest": products_by_formula(config)}
    # The compiler counts what is added, normalised and activated, too: 8 % of it.
    assert 1 < traced.lower().cost_analysis()["flops"] / products_by_formula(config) < 1.1


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
def test_products_of_other_tokens_and_blocks_are_those_of_the_formula(model):
    config = update(load_config("smoke", ["model.dropout=0.0"]), {"model": model})
    assert count_products(trace(config).jaxpr).flops == {"highest": products_by_formula(config)}


def test_parts_are_counted_as_often_as_they_run_and_what_is_computed_again_again():
    config = load_config("smoke", ["grad_accum_steps=2", "remat=full"])
    jaxpr = trace(config).jaxpr
    every, once = count_products(jaxpr), count_products(jaxpr, repeat=lambda length: 1)
    assert every.flops["highest"] == 2 * once.flops["highest"]
    # One more forward pass of the online network's blocks, of four.
    assert 1.1 < every.flops["highest"] / products_by_formula(config) < 1.25


def test_precisions_are_told_apart():
    def two(x):
        return jnp.matmul(x, x) + jnp.matmul(x, x, precision="highest") + jnp.matmul(x, x, precision="high")

    flops = count_products(jax.make_jaxpr(two)(jnp.zeros((4, 4)))).flops
    assert flops == {"default": 128, "highest": 128, "high": 128}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5e", "topology 'v5e' is no such thing; write chip:shape"),
        ("v5e:0x4", "is no such thing"),
        ("v9:4x4", "has an unknown chip; choose one of v4, v5e"),
        ("v5e:4x4x4", "has 3 axes; a slice of v5e has 2, for instance v5e:4x4"),
        ("v5e:16x32", "has 512 chips; a slice of v5e has at most 256"),
        ("h100:2x4", "has 2 axes; a slice of h100 has 1"),
    ],
)
def test_what_is_no_topology_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_topology(text)


def test_rings_that_do_not_close_have_half_the_links():
    whole, part = (parse_topology(text) for text in ("v5e:16x16", "v5e:4x4"))
    assert (whole.chips, part.chips, part.links) == (256, 16, whole.links / 2)
    assert parse_topology("v5p:8x8x8").links == CHIPS["v5p"].links


def test_a_step_takes_the_longer_of_products_and_traffic_and_the_exchanges():
    topology = parse_topology("v5e:16x16")
    reduced = Collective("all-reduce", 10**9, 256, 2, "")
    found = estimate(Work({"default": 197e9, "highest": 197e9}, 819e6, (reduced,), 0.0, cycles=1.5e6), topology)
    assert found.products == pytest.approx(1e-3 + 6e-3)
    assert found.memory == pytest.approx(1e-3)
    assert found.exchange == pytest.approx(2 * 2 * 1e9 * 255 / 256 / 200e9)
    assert found.schedule == pytest.approx(1e-3)
    assert found.floor == found.step == pytest.approx(found.products + found.exchange)
    assert found.bound == "matrix products"
    assert found._replace(schedule=1.0).step == pytest.approx(1 + found.exchange)


def test_exchanges_between_nodes_take_the_network():
    work = Work({}, 0.0, (Collective("all-reduce", 8 * 10**9, 16, 1, ""),), 0.0)
    inside, outside = 2 * 8e9 * 7 / 8 / 450e9, 2 * 1e9 * 1 / 2 / 50e9
    assert estimate(work, parse_topology("h100:16")).exchange == pytest.approx(inside + outside)


def test_scaling_keeps_the_update_and_shares_the_rest():
    chip, parameters = CHIPS["v5e"], 10**6
    work = Work({"default": 0.0}, 819e6 + UPDATE * parameters, (Collective("all-reduce", 4 * parameters, 16, 1, ""),), 0.0)
    weak = scale(work, chip, rows=16, parameters=parameters, chips=(1, 256, 512))
    alone = 1e-3 + UPDATE * parameters / chip.bandwidth
    assert (weak[0].seconds, weak[0].exchange, weak[0].efficiency) == (pytest.approx(alone), 0, 1)
    reduced = 2 * 4e6 * 255 / 256 / 200e9
    assert weak[1].seconds == pytest.approx(alone + reduced)
    assert weak[2].exchange == pytest.approx(reduced + 2 * 4e6 / 256 / 2 / chip.network)
    assert weak[2].series == pytest.approx(16 * 512 / weak[2].seconds)
    strong = scale(work, chip, rows=16, parameters=parameters, chips=(1, 256), batch=256)
    assert [point.rows for point in strong] == [256, 1]
    assert strong[0].efficiency == 1
    assert strong[1].efficiency == pytest.approx(strong[0].seconds / 256 / strong[1].seconds)
    slow = scale(work._replace(cycles=3e6), chip, rows=16, parameters=parameters, chips=(1,), batch=32)
    update = UPDATE * parameters / chip.bandwidth
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
    size = CorpusSize(sum(part.card["points"] for part in corpus.parts), len(corpus), len(corpus.class_sizes))
    mesh = make_mesh(2)
    real, told = next(make_feed(config, corpus, mesh).batches(0)), describe_batch(config, mesh, size=size)
    assert jax.tree.structure(real) == jax.tree.structure(told)
    for one, other in zip(jax.tree.leaves(real), jax.tree.leaves(told), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (other.shape, other.dtype, other.sharding)


def test_gpus_are_planned_by_analysis(tmp_path, capsys):
    file = tmp_path / "plan.json"
    overrides = ["--config.data.on_device=true", "--corpus=1000000,5000,20", "--config.batch_size=4096"]
    assert main(["plan", "--config=smoke", "--topology=h100:16", "--scaling", f"--json={file}", *overrides]) == 0
    text, plan = capsys.readouterr().out, json.loads(file.read_text())
    config = load_config("smoke", ["batch_size=4096"])
    assert plan["products_flops"] == {"highest": products_by_formula(config) / 16}
    assert plan["temporaries_bytes"] is None
    parameters = plan["exchanges"]["all-reduce of gradients"]["bytes"] / 4
    corpus = 4 * (1000000 + 3 * 5000 + 3 * 20)
    assert plan["arguments_bytes"] > 5 * 4 * 0.8 * parameters + corpus  # both networks, without a second predictor, and moments
    seconds = plan["seconds"]["floor"]
    assert plan["floor"]["chip_hours"] == pytest.approx(16 * seconds * config.steps / 3600)
    for line in plan["scaling"].values():
        assert [point["chips"] for point in line] == [1, 4, 16, 64, 256, 1024, 4096]
    for words in ("smoke on h100:16: 16 chips, by analysis", "all-reduce of gradients", "HBM needed", "chip-hours", "4096 series in all"):
        assert words in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=h100:3"], "batch size 16 is not divisible by 3 chips; 15 would be"),
        (["--topology=h100:8", "--corpus=12"], "--corpus is '12'"),
        (["--topology=h100:8", "--config.data.on_device=true"], "the size of the corpus is not known"),
        (["--topology=h100:8", "--config.steps=0"], "steps is 0"),
        (["--topology=h100:8", "--json=/nowhere/plan.json"], "Cannot write /nowhere/plan.json (its folder does not exist)"),
        (["--topology=tpu"], "topology 'tpu' is no such thing"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, message, capfd):
    assert main(["plan", "--config=smoke", *arguments]) == 2
    assert message in capfd.readouterr().err


def test_without_the_compiler_tpus_are_refused(monkeypatch):
    monkeypatch.setattr(planned.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'nutime_jax\[tpu\]' brings it, no TPU is needed"):
        planned.compile_work(load_config("smoke"), parse_topology("v5e:2x2"))


class Full:
    """A step that the compiler finds no room for."""

    state = None

    @property
    def step(self):
        return self

    def trace(self, state, batch):
        return self

    lower = compile = lambda self: self.fail()

    def fail(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Used 20.00G of 15.75G hbm.\nLargest allocations: ...")


def test_a_batch_that_does_not_fit_is_told_before_anyone_pays(monkeypatch):
    monkeypatch.setattr(planned, "_devices", lambda topology: jax.devices()[:4])
    monkeypatch.setattr(planned, "build_program", lambda *args, **kwargs: Full())
    message = r"batch size 16 does not fit v5e:2x2 \(Used 20.00G of 15.75G hbm\); choose a smaller batch"
    with pytest.raises(InputError, match=message):
        planned.compile_work(load_config("smoke"), parse_topology("v5e:2x2"))


@COMPILER
def test_a_step_compiled_for_a_slice_reduces_gradients_once_and_gathers_nothing():
    plans = [
        planned.make_plan(load_config("smoke", [f"batch_size={size}"]), parse_topology(text))
        for text, size in (("v5e:2x2", 16), ("v5e:4x4", 64))
    ]
    small, large = plans
    # Four rows a chip, whatever there are of chips: no number of a chip grows with the batch of all.
    for name in ("moved_bytes", "temporaries_bytes", "arguments_bytes", "flops"):
        assert math.isclose(small[name], large[name], rel_tol=0.01), name
    config = load_config("smoke")
    params = build_program(config, views=make_views(config), mesh=make_mesh(1)).state.params
    size = lambda tree: 4 * sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert set(large["exchanges"]) == {"all-reduce of gradients", "all-reduce of BatchNorm's statistics", "all-reduce of what is logged"}
    # Each once; that of BatchNorm's own parameters among its statistics, that of the NME by way of three numbers a scale.
    reduced = size(params) - size([params[name]["norm"] for name in ("projector", "predictor")]) + 3 * 4 * 9
    assert large["exchanges"]["all-reduce of gradients"] == {**large["exchanges"]["all-reduce of gradients"], "bytes": reduced, "times": 1}
    assert "fits" in render_plan(large)
