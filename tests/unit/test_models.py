import itertools
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nutime_jax.config import ModelConfig
from nutime_jax.errors import InputError
from nutime_jax.models.heads import SiameseNetwork
from nutime_jax.models.layers import KERNELS, Attention, BatchNorm, Linear, ResidualBlock, gelu, multiply, with_mean
from nutime_jax.models.microbatches import FULL_BATCH, Microbatches, map_microbatches
from nutime_jax.models.network import Encoding, NuTimeEncoder, check_input_lengths, check_num_window_offsets
from nutime_jax.models.pooling import pool_tokens
from nutime_jax.models.positions import sinusoidal_positions
from nutime_jax.models.tokens import WindowEmbedding
from nutime_jax.objectives.byol import byol_loss
from tests import reference

SMALL = {"width": 16, "depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 32, "scale_dim": 8}
SHALLOW = SMALL | {"depth": 1}


def draw(network, shape, seed=0):
    """Return variables that are drawn in NumPy, without compilation; biases and scales differ from their initial values."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[-1].key == "positions" and path[0].key == "constants":
            return jnp.asarray(sinusoidal_positions(*leaf.shape))
        centre = 1.0 if path[-1].key in ("scale", "var") else 0.0
        return jnp.asarray(centre + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="module")
def encoding():
    """An encoding of two blocks, drawn in NumPy: 3 series of 4 windows."""
    first, second, last, normalised = jnp.float32(np.random.default_rng(0).normal(size=(4, 3, 5, 16)))
    return Encoding(layers=(first, second, last), normalised=normalised, stem=first[:, 0, :7])


def test_the_base_encoder_has_the_published_size():
    shapes = jax.eval_shape(NuTimeEncoder().init, jax.random.key(0), jnp.zeros((1, 1, 512)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 2_395_328


def test_the_encoder_follows_the_reference(x64):
    network = NuTimeEncoder(ModelConfig(**SMALL))
    variables = jax.tree.map(np.asarray, draw(network, (1, 1, 96)))
    variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
    x = np.random.default_rng(0).normal(size=(3, 96)) * np.array([[1e-3], [1.0], [1e4]]) + 5
    ours = jax.jit(network.apply)(variables, jnp.asarray(x)[:, None]).normalised
    scales = np.float32(network.config.scales).astype(np.float64)
    theirs = reference.encode(x, variables["params"], variables["constants"]["positions"], window=16, heads=2, scales=scales)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_the_loss_and_its_gradient_follow_the_reference(x64):
    network = SiameseNetwork(NuTimeEncoder(ModelConfig(**SMALL, dropout=0.0)), hidden_dim=24, output_dim=12)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), draw(network, (2, 2, 1, 64)))
    rng = np.random.default_rng(1)
    views = rng.normal(size=(6, 2, 1, 64)).cumsum(-1)
    targets = rng.normal(size=(6, 2, 12))
    scales = np.float32(network.encoder.config.scales).astype(np.float64)
    positions = np.asarray(variables["constants"]["encoder"]["positions"])

    def ours(params):
        outputs, _ = network.apply({**variables, "params": params}, jnp.asarray(views), train=True, mutable=["batch_stats"])
        return byol_loss(outputs.predictions, jnp.asarray(targets))

    def theirs(params):
        params = jax.tree.map(np.asarray, params)
        predictions = []
        for view in (0, 1):
            tokens = reference.encode(views[:, view, 0], params["encoder"], positions, window=16, heads=2, scales=scales)
            predictions.append(reference.head(reference.head(tokens[:, 0], params["projector"]), params["predictor"]))
        return reference.byol_loss(predictions, [targets[:, 0], targets[:, 1]])

    params = variables["params"]
    loss, gradient = jax.jit(jax.value_and_grad(ours))(params)
    np.testing.assert_allclose(loss, theirs(params), rtol=1e-10)
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    step = 1e-5
    ahead, behind = (theirs(optax.tree.add_scale(params, sign * step, direction)) for sign in (1, -1))
    along = sum(jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(along, (ahead - behind) / (2 * step), rtol=1e-5)


def test_initial_weights_are_spread_as_pytorch_spreads_them():
    params = jax.jit(NuTimeEncoder(ModelConfig(depth=1)).init)(jax.random.key(0), jnp.zeros((1, 1, 512)))["params"]
    for module, fan_in in ((params["block_0"]["mlp"]["out"], 512), (params["block_0"]["attention"]["out"], 512)):
        for leaf in (module["kernel"], module["bias"]):
            bound = fan_in**-0.5
            assert 0.9 * bound < np.abs(leaf).max() <= bound
            np.testing.assert_allclose(np.std(leaf), bound / 3**0.5, rtol=0.15)
    assert "bias" not in params["block_0"]["attention"]["qkv"]
    assert np.abs(params["cls"]).max() < 1e-5


def test_batch_norm_keeps_unbiased_running_statistics():
    norm = BatchNorm()
    x = jnp.asarray(np.random.default_rng(2).normal(3, 2, (8, 5)), jnp.float32)
    variables = norm.init(jax.random.key(0), x, train=False)
    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - x.mean(0)[None]) / np.sqrt(np.var(x, 0) + 1e-5)[None], atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * np.mean(x, 0), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * np.var(x, 0, ddof=1), rtol=1e-5)


def test_batch_norm_of_two_views_is_that_of_one_after_the_other(x64):
    x = jnp.asarray(np.random.default_rng(5).normal(loc=3.0, size=(6, 2, 4)))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x[:, 0], train=True)
    both, moved = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    state = variables
    for view in range(2):
        one, update = norm.apply(state, x[:, view], train=True, mutable=["batch_stats"])
        np.testing.assert_allclose(both[:, view], one, atol=1e-12)
        state = {**state, **update}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), moved["batch_stats"], state["batch_stats"])


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_every_layer_can_be_read(encoding, layer):
    tokens = encoding.normalised if layer is None else encoding.layers[layer]
    expected = {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
    expected["cls+mean"] = np.concatenate([expected["cls"], expected["mean"]], axis=1)
    for pooling, features in expected.items():
        np.testing.assert_allclose(pool_tokens(encoding, layer=layer, pooling=pooling), features, rtol=1e-6, atol=1e-7, strict=True)


def test_all_layers_can_be_read_together(encoding):
    together = pool_tokens(encoding, pooling="all_layers")
    layers = [pool_tokens(encoding, layer=layer, pooling="cls+mean" if layer else "mean") for layer in range(3)]
    np.testing.assert_array_equal(together, np.concatenate(layers, axis=1))
    with_stem = pool_tokens(encoding, pooling="all_layers+stem")
    np.testing.assert_array_equal(with_stem, np.concatenate([together, encoding.stem], axis=1))
    for pooling in ("all_layers", "all_layers+stem"):
        with pytest.raises(InputError, match=re.escape(f"pooling {pooling!r} excludes layer (layer is 1)")):
            pool_tokens(encoding, layer=1, pooling=pooling)


def test_an_encoder_gives_every_layer():
    network = NuTimeEncoder(ModelConfig(**SMALL))
    shapes, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros((3, 1, 64)))
    assert [leaf.shape for leaf in (*shapes.layers, shapes.normalised)] == [(3, 5, 16)] * 4


def test_mistakes_are_rejected(encoding):
    network = NuTimeEncoder(ModelConfig(**SMALL, max_tokens=4))
    with pytest.raises(InputError, match="max_tokens 4"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1, 64)))
    with pytest.raises(InputError, match="layer 3 does not exist; choose 0 to 2"):
        pool_tokens(encoding, layer=3, pooling="cls")
    with pytest.raises(InputError, match="'max' is unknown"):
        pool_tokens(encoding, pooling="max")


@pytest.mark.parametrize(("into", "out"), [(5, 11), (11, 5)])
def test_the_gradient_of_a_product_is_that_of_a_plain_one(into, out, x64):
    rng = np.random.default_rng(2)
    x, kernel, pull = (jnp.asarray(rng.normal(size=shape)) for shape in ((3, 4, into), (into, out), (3, 4, out)))
    ours = jax.vjp(multiply, x, kernel)
    theirs = jax.vjp(jnp.matmul, x, kernel)
    for one, other in zip((ours[0], *ours[1](pull)), (theirs[0], *theirs[1](pull)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


def test_gelu_is_exact():
    x = np.linspace(-30, 30, 4001, dtype=np.float32)
    expected = [0.5 * value * math.erfc(-value / math.sqrt(2)) for value in x.astype(np.float64)]
    np.testing.assert_allclose(gelu(jnp.asarray(x)), expected, rtol=1e-6, atol=1e-6)
    assert np.isfinite(jax.vmap(jax.grad(gelu))(jnp.array([-3e38, -1e20, 0, 1e20, 3e38]))).all()


def test_the_first_tokens_of_the_last_block_are_those_of_the_whole():
    network, x = NuTimeEncoder(ModelConfig(**SMALL)), jax.random.normal(jax.random.key(3), (4, 1, 64))
    variables = draw(network, (1, 1, 64))
    whole, *parts = jax.jit(lambda x: [network.apply(variables, x, num_output_tokens=last) for last in (None, 1, 2)])(x)
    for last, part in enumerate(parts, 1):
        assert part.normalised.shape[1] == part.layers[-1].shape[1] == last
        np.testing.assert_allclose(part.normalised, whole.normalised[:, :last], atol=2e-6)
        np.testing.assert_array_equal(part.layers[-2], whole.layers[-2])


@pytest.mark.parametrize(("heads", "head_dim", "outputs"), [(8, 64, None), (8, 64, 1), (6, 8, 3), (3, 64, None), (1, 128, None)], ids=str)
def test_attention_for_tpus_is_that_for_cpus(heads, head_dim, outputs, x64):
    plain, lanes = (Attention(heads, head_dim, dropout=0.0, platform=platform) for platform in ("cpu", "tpu"))
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 9, 12)))
    variables, others = (jax.jit(lambda x, module=module: module.init(jax.random.key(0), x, train=True))(x) for module in (plain, lanes))
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    variables = jax.tree.map(lambda leaf: leaf.astype(x.dtype), variables)

    def value(module):
        return lambda variables, x: jnp.sin(module.apply(variables, x, train=True, num_output_tokens=outputs)).sum()

    ours, theirs = (jax.jit(jax.value_and_grad(value(module), argnums=(0, 1)))(variables, x) for module in (lanes, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), ours, theirs)


def test_bfloat16_keeps_the_outputs_in_float32_and_near():
    x = np.random.default_rng(4).normal(size=(8, 1, 32)).cumsum(-1)
    config = ModelConfig(**SMALL | {"window_size": 8})
    exact, short = (NuTimeEncoder(config, platform=platform, dtype=dtype) for platform, dtype in (("cpu", None), ("tpu", "bfloat16")))
    variables = draw(exact, (1, 1, 32))
    ours, theirs = (jax.jit(network.apply)(variables, jnp.asarray(x, jnp.float32)) for network in (short, exact))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == jnp.float32
        cosine = (a * b).sum(-1) / jnp.linalg.norm(a, axis=-1) / jnp.linalg.norm(b, axis=-1)
        assert float(cosine.min()) > 0.999
    assert not np.array_equal(ours.normalised, theirs.normalised)


def microbatched(network, variables, encode, *arrays):
    """Return a function of the microbatch size: features, gradient by the weights, and the numbers of rows that `encode` got."""
    sizes = []

    def counted(network, *arrays):
        sizes.append(len(arrays[0]))
        return encode(network, *arrays)

    def loss(params, microbatches):
        method = lambda network: map_microbatches(counted, network, *arrays, microbatches=microbatches)  # noqa: E731
        features = network.apply({**variables, "params": params}, method=method)
        return jnp.sin(3 * features).sum(), features

    def compute(microbatches):
        sizes.clear()
        (_, features), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(variables["params"], microbatches)
        return features, gradient, set(sizes)

    return compute


def assert_close_gradients(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()), ours, theirs)


def test_a_batch_in_chunks_is_the_batch():
    """18 rows: their features, and the gradient by the weights, whatever goes through at a time."""
    network, x = Linear(4), jax.random.normal(jax.random.key(4), (18, 6))
    compute = microbatched(network, network.init(jax.random.key(0), x), lambda network, x: jnp.tanh(network(x)), x)
    expected, whole, _ = compute(FULL_BATCH)
    for (rows, count), recompute in itertools.product(((None, 1), (20, 1), (8, 2), (6, 3), (5, 3), (1, 18)), (True, False)):
        features, gradient, sizes = compute(Microbatches(rows, recompute))
        assert sizes == {18 // (count if recompute else min(count, 3))}  # of 18 rows, 3 is the largest divisor up to MAX_PARTS
        np.testing.assert_allclose(features, expected, atol=3e-6)
        assert_close_gradients(gradient, whole)


@pytest.mark.parametrize("recompute", [True, False])
def test_an_encoder_in_chunks_is_the_encoder(recompute):
    network, x = NuTimeEncoder(ModelConfig(**SHALLOW)), jax.random.normal(jax.random.key(4), (18, 1, 64))
    variables = draw(network, (1, 1, 64))
    compute = microbatched(network, variables, lambda network, x, offset: pool_tokens(network(x, offset)), x, jnp.zeros((18, 1)))
    (features, gradient, sizes), (expected, whole, _) = compute(Microbatches(6, recompute)), compute(FULL_BATCH)
    assert sizes == {6}
    np.testing.assert_allclose(features, expected, atol=3e-6)
    assert_close_gradients(gradient, whole)


@pytest.mark.parametrize("recompute", [True, False])
def test_dropout_differs_from_chunk_to_chunk(recompute):
    network, x = NuTimeEncoder(ModelConfig(**SHALLOW, dropout=0.5)), jnp.zeros((4, 1, 64))
    encode = lambda network, x: pool_tokens(network(x, train=True))  # noqa: E731
    chunked = lambda network: map_microbatches(encode, network, x, microbatches=Microbatches(1, recompute))  # noqa: E731
    variables = draw(network, (1, 1, 64))
    features = jax.jit(lambda key: network.apply(variables, method=chunked, rngs={"dropout": key}))(jax.random.key(0))
    assert len(np.unique(np.asarray(features), axis=0)) == 4


def test_a_residual_block_follows_the_reference(x64):
    rng = np.random.default_rng(5)
    x, block = jnp.asarray(rng.normal(size=(2, 6, 4))), ResidualBlock(ModelConfig(dropout=0.5))
    params = jax.jit(partial(block.init, train=False))(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape)), params)
    found = jax.jit(partial(block.apply, train=False))({"params": params}, x)
    expected = reference.residual_block(np.asarray(x[:, 1:]), jax.tree.map(np.asarray, params), KERNELS)
    np.testing.assert_allclose(found, with_mean(jnp.asarray(expected)), atol=1e-12)
    first = jax.jit(partial(block.apply, train=False, num_output_tokens=1))({"params": params}, x)
    np.testing.assert_allclose(first, found[:, :1], atol=1e-12)


def test_a_resnet_has_the_mean_of_all_tokens_in_the_place_of_cls():
    network, x = NuTimeEncoder(ModelConfig(**SHALLOW, backbone="resnet")), jax.random.normal(jax.random.key(5), (3, 1, 64))
    variables = draw(network, (1, 1, 64))
    assert "cls" not in variables["params"]
    encoding = jax.jit(network.apply)(variables, x)
    assert [layer.shape for layer in encoding.layers] == [(3, 5, 16)] * 2
    for layer in encoding.layers:
        np.testing.assert_allclose(layer[:, 0], layer[:, 1:].mean(1), atol=1e-6)
    np.testing.assert_array_equal(pool_tokens(encoding, layer=1, pooling="cls"), encoding.layers[1][:, 0])


def test_the_mean_is_over_windows_of_every_size():
    x = jax.random.normal(jax.random.key(6), (3, 1, 64))
    networks = [NuTimeEncoder(ModelConfig(**SHALLOW, pos_embedding="none", extra_window_sizes=windows)) for windows in ((), (8, 64))]
    variables = draw(networks[1], (1, 1, 64))

    @jax.jit
    def read(x):
        encodings = [network.apply(variables, x) for network in networks]
        return [encoding.layers[0] for encoding in encodings], pool_tokens(encodings[1], layer=0, pooling="mean")

    (alone, several), mean = read(x)
    assert (alone.shape, several.shape) == ((3, 5, 16), (3, 1 + 4 + 8 + 1, 16))
    size = variables["params"]["embedding"]["size"]
    np.testing.assert_allclose(several[:, 1:5], alone[:, 1:] + size[None, :1], atol=1e-6)
    np.testing.assert_allclose(mean, several[:, 1:].mean(1), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet"},
        {"extra_window_sizes": (4, 32), "stride": 8, "pos_embedding": "rotary"},
        {"dense_stride": 2, "dense_differences": True},
    ],
    ids=str,
)
def test_other_tokens_and_blocks_are_finite_at_any_scale(options):
    network = NuTimeEncoder(ModelConfig(**SHALLOW, **options))
    x = jax.random.normal(jax.random.key(7), (7, 1, 64)) * jnp.array([0, 1e-30, 1e-4, 1, 1e4, 1e20, 1e38])[:, None, None]
    variables = draw(network, (1, 1, 64))
    loss = lambda params: jnp.sin(pool_tokens(network.apply({**variables, "params": params}, x))).sum()  # noqa: E731
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(variables["params"])))


@pytest.mark.parametrize("differences", [False, True])
def test_dense_tokens_follow_the_reference(differences, x64):
    config = ModelConfig(**SHALLOW, dense_stride=4, dense_differences=differences)
    embedding = WindowEmbedding(config)
    x = np.random.default_rng(0).normal(size=(2, 1, 96)) * np.array([[[1e-3]], [[1e4]]]) + 5
    shapes = jax.eval_shape(embedding.init, jax.random.key(0), jnp.zeros((1, 1, 96)), None)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
    ours = jax.jit(embedding.apply)({"params": jax.tree.map(jnp.asarray, params)}, jnp.asarray(x), None)
    parts = [reference.dense_shape(x[:, 0], params["dense"], 16, 4)]
    if differences:
        parts.append(reference.dense_shape(reference.first_difference(x[:, 0]) / 2, params["dense_differences"], 16, 4))
    scales, nme = np.float32(config.scales).astype(np.float64), params["nme"]
    parts += [reference.embed_scalar(part, nme["weight"], nme["bias"], scales) for part in reference.windows(x[:, 0], 16)[1:]]
    merged = reference.linear(np.concatenate(parts, -1), params["merge"])
    np.testing.assert_allclose(ours, reference.layer_norm(merged, **params["merge_norm"]), atol=1e-9)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"dense_stride": 3}, "model.dense_stride 3 does not divide the token stride 16; choose a divisor, or 0"),
        ({"dense_differences": True}, "model.dense_differences needs dense windows; set model.dense_stride"),
        ({"dense_stride": 2, "normalisation": "instance"}, "model.normalisation is 'instance'; dense windows need 'window'"),
        ({"dense_stride": 2, "channel_fusion": "sum"}, "model.channel_fusion is 'sum'; dense windows need 'linear'"),
        ({"dense_stride": 2, "extra_window_sizes": (8,)}, r"model.extra_window_sizes is \(8,\); dense windows need \(\)"),
        ({"pos_embedding": "relative"}, "model.pos_embedding is 'relative'; choose one of sinusoidal, learned, rotary, none"),
        ({"backbone": "lstm"}, "model.backbone is 'lstm'; choose one of transformer, resnet"),
        ({"normalisation": "batch"}, "model.normalisation is 'batch'; choose one of window, instance"),
        ({"pos_embedding": "rotary", "head_dim": 7}, "model.pos_embedding is 'rotary', which rotates pairs"),
        ({"pos_embedding": "rotary", "backbone": "resnet"}, "choose transformer and an even head_dim"),
        ({"stride": 17}, "model.stride is 17, and windows of 16 time points would leave gaps; choose at most 16"),
        ({"stride": -1}, "model.stride is -1; choose an integer of 0 or more"),
        ({"stride": 2.5}, r"model.stride is 2.5; choose an integer"),
        ({"window_size": 0}, "model.window_size is 0; choose an integer of 1 or more"),
        ({"extra_window_sizes": (8, "32")}, r"model.extra_window_sizes is \(8, '32'\); choose integers of 1 or more"),
        ({"extra_window_sizes": 8}, "model.extra_window_sizes is 8; choose integers of 1 or more, separated by commas"),
        ({"extra_window_sizes": (8, 16)}, r"model.extra_window_sizes is \(8, 16\) with model.window_size 16; name each size once"),
        ({"extra_window_sizes": (8,), "backbone": "resnet"}, "a resnet needs tokens of one order; leave model.extra_window_sizes empty"),
        ({"extra_window_sizes": (8, 32), "stride": 12}, "windows of 8 cannot overlap by the same ratio as those of 16 every 12"),
        ({"extra_window_sizes": (6,), "stride": 4}, "windows of 6 cannot overlap by the same ratio"),
    ],
    ids=str,
)
def test_values_that_make_no_encoder_are_rejected(model, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**model)


def test_lengths_and_shifts_go_by_the_stride_and_by_every_size():
    overlapping = NuTimeEncoder(ModelConfig(stride=4, max_tokens=9))
    assert check_input_lengths((16, 44), overlapping) == (16, 44)  # one window, and the most that there are rows for
    assert (overlapping.count_tokens(44), check_num_window_offsets(4, overlapping)) == (9, 4)
    for length in (12, 18, 48):
        with pytest.raises(
            InputError, match=f"length {length} cannot be embedded; .* windows of 16 time points every 4 tile exactly, at most 8"
        ):
            check_input_lengths((length,), overlapping)
    with pytest.raises(InputError, match=r"num_window_offsets is 5; .* the window stride, 4"):
        check_num_window_offsets(5, overlapping)
    several = NuTimeEncoder(ModelConfig(extra_window_sizes=(8, 64)))
    assert (several.config.min_length, several.count_tokens(128)) == (64, 1 + 8 + 16 + 2)
    with pytest.raises(
        InputError, match=r"length 32 cannot be embedded; .* of 16 time points every 16 and of 8 time points every 8 and of 64"
    ):
        check_input_lengths((32,), several)
    with pytest.raises(InputError, match="length 32 is not divisible by window 64"):
        jax.eval_shape(several.init, jax.random.key(0), jnp.zeros((1, 1, 32)))
