import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

from nutime_jax.errors import InputError
from nutime_jax.synthetic import kernels, processes, sensors, synthetic_series
from nutime_jax.synthetic.series import GROUP, MAX_LENGTH, ROOTS

LENGTH = 64
PERIOD = 128
LAGS = jnp.arange(PERIOD // 2 + 1, dtype=jnp.float32)
SAMPLES = 20_000
KEY = jax.random.key(5)
stationary_process = jax.jit(processes.stationary_process)


def numpy_kernels(scale, alpha, cycles, sharpness):
    """Covariances at lag d in float64, from the textbook (Rasmussen and Williams 2006, chapter 4)."""
    return {
        "rbf": lambda d: np.exp(-(d**2) / (2 * scale**2)),
        "rational_quadratic": lambda d: (1 + d**2 / (2 * alpha * scale**2)) ** -alpha,
        "matern12": lambda d: np.exp(-d / scale),
        "matern32": lambda d: (1 + np.sqrt(3) * d / scale) * np.exp(-np.sqrt(3) * d / scale),
        "matern52": lambda d: (1 + np.sqrt(5) * d / scale + 5 * d**2 / (3 * scale**2)) * np.exp(-np.sqrt(5) * d / scale),
        "periodic": lambda d: np.exp(-2 * np.sin(np.pi * d * cycles / PERIOD) ** 2 / sharpness**2),
        "white": lambda d: (d == 0) * 1.0,
        "constant": lambda d: np.ones_like(d, dtype=float),
    }


@jax.jit
def rows(scale, alpha, cycles, sharpness):
    scale, alpha, sharpness = jnp.float32(scale), jnp.float32(alpha), jnp.float32(sharpness)
    return {
        "rbf": kernels.rbf(LAGS, scale),
        "rational_quadratic": kernels.rational_quadratic(LAGS, scale, alpha),
        "matern12": kernels.matern12(LAGS, scale),
        "matern32": kernels.matern32(LAGS, scale),
        "matern52": kernels.matern52(LAGS, scale),
        "periodic": kernels.periodic(kernels.phase(cycles, PERIOD, LAGS.astype(jnp.int32)), sharpness),
        "white": kernels.white(LAGS),
        "constant": jnp.ones_like(LAGS),
    }


def covariance_of_law(row):
    """Covariance of the first LENGTH points, without sampling: the process is linear in its noise."""
    root = np.asarray(stationary_process(jnp.tile(row, (PERIOD, 1)), jnp.eye(PERIOD)), np.float64)[:, :LENGTH]
    return root.T @ root


def toeplitz(kernel):
    time = np.arange(LENGTH)
    return kernel(np.abs(time[:, None] - time))


def rounding(row):
    """What an eigenvalue may lose or be wrong by, and the rounding of the sums of this test."""
    return processes.ROUNDING * float(jnp.sqrt(jnp.square(row).sum())) + 2e-6


def sample(row, key=0):
    noise = jax.random.normal(jax.random.key(key), (SAMPLES, PERIOD))
    return np.asarray(stationary_process(jnp.tile(row, (SAMPLES, 1)), noise), np.float64)[:, :LENGTH]


# What dropping negative eigenvalues costs for a length scale of a quarter of the series (computed in float64, and stated in
# `stationary_process`). The tail of a rational quadratic costs something at any scale.
QUARTER = {"rbf": 8e-5, "rational_quadratic": 3e-3, "matern32": 1e-4, "matern52": 2e-4}


@pytest.mark.parametrize("name", numpy_kernels(1, 1, 1, 1))
@pytest.mark.parametrize("scale", [2.0, LENGTH / 4])
def test_the_covariance_is_that_of_the_kernel(name, scale):
    cost = QUARTER.get(name, 0) if scale == LENGTH / 4 or name == "rational_quadratic" else 0
    for parameters in ((scale, 1.0, 5, 0.3), (scale, 10.0, 1, 2.0)):
        row, expected = rows(*parameters)[name], toeplitz(numpy_kernels(*parameters)[name])
        assert np.abs(covariance_of_law(row) - expected).max() < cost + rounding(row)


def test_sums_and_products_of_kernels_are_kernels():
    parameters = (6.0, 1.0, 9, 0.5)
    row, kernel = rows(*parameters), numpy_kernels(*parameters)
    total = row["matern32"] + 0.5 * row["periodic"] + 0.1 * row["white"]
    product = row["rbf"] * row["periodic"] * row["matern12"]
    expected_total = toeplitz(lambda d: kernel["matern32"](d) + 0.5 * kernel["periodic"](d) + 0.1 * kernel["white"](d))
    expected_product = toeplitz(lambda d: kernel["rbf"](d) * kernel["periodic"](d) * kernel["matern12"](d))
    for one, expected in ((total, expected_total), (product, expected_product)):
        assert np.abs(covariance_of_law(one) - expected).max() < rounding(one)


def test_random_compositions_are_positive_definite_on_the_circle():
    u, whole = jax.random.uniform(jax.random.key(0), (1000, kernels.KERNELS, 7)), jax.random.uniform(jax.random.key(1), (1000, 3))
    row = jax.jit(jax.vmap(lambda u, whole: kernels.random_composition(u, whole, LENGTH)))(u, whole)
    np.testing.assert_allclose(row[:, 0], 1, rtol=1e-6)
    # The covariance with the first point is all there is: the law is stationary.
    noise = jnp.zeros((1000, PERIOD)).at[:, 0].set(1)
    root = np.fft.rfft(np.asarray(stationary_process(row, noise), np.float64))
    error = np.abs(np.fft.irfft(np.abs(root) ** 2, PERIOD)[:, :LENGTH] - np.asarray(row)[:, :LENGTH]).max(-1)
    assert error.max() < 3e-3  # as for the worst single kernel: a sum is normalised, a product is smaller
    assert np.median(error) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", numpy_kernels(1, 1, 1, 1))
def test_samples_are_normal_and_covary_as_the_kernel_says(name):
    parameters = (8.0, 1.0, 5, 0.5)
    x = sample(rows(*parameters)[name])
    # An empirical covariance of variables of variance 1 has a standard error of at most sqrt(2 / n): five of them.
    error = np.abs(x[:, ::4].T @ x[:, ::4] / SAMPLES - toeplitz(numpy_kernels(*parameters)[name])[::4, ::4]).max()
    assert error < 5 * np.sqrt(2 / SAMPLES)
    assert stats.kstest(x[:, 17], "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(x[:, 17])) < 5 * np.sqrt(24 / SAMPLES)


def test_a_smooth_process_is_smooth_to_the_rounding_of_float32():
    scale, period = 256.0, 4096
    row = kernels.rbf(jnp.arange(period // 2 + 1, dtype=jnp.float32), jnp.float32(scale))
    x = np.asarray(stationary_process(jnp.tile(row, (200, 1)), jax.random.normal(jax.random.key(4), (200, period))), np.float64)
    # The second derivative of an RBF process has variance 3 / scale^4; 200 x 16 length scales: 4 standard errors are 10%.
    curvature = np.square(np.diff(x, n=2)).mean()
    assert 0.9 < curvature * scale**4 / 3 < 1.1


def linear_kernel(mode, process, origin=0.3, key=1):
    u = jax.random.uniform(jax.random.key(key), (len(process),))
    apply = jax.vmap(lambda slope, one: processes.with_linear_kernel(jnp.stack([jnp.float32(mode), slope, 0.0, origin]), one))
    return np.asarray(apply(u, jnp.asarray(process, jnp.float32)), np.float64)


def test_the_linear_kernel_is_added_and_multiplied_in_closed_form():
    parameters = (8.0, 1.0, 5, 0.5)
    line = np.arange(LENGTH) / LENGTH - 0.3
    stationary, linear = toeplitz(numpy_kernels(*parameters)["matern52"]), np.outer(line, line)
    x = sample(rows(*parameters)["matern52"], key=2)
    left, added, multiplied = (linear_kernel(mode, x) for mode in (0.0, 0.7, 0.99))
    assert (left == np.float32(x)).all()
    for y, expected in ((added, stationary + processes.SLOPE[0] ** 2 * linear), (multiplied, stationary * linear)):
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        error = np.abs(y.T @ y / SAMPLES - expected)[::4, ::4] / np.maximum(scale, 1e-12)[::4, ::4]
        assert error.max() < 5 * np.sqrt(2 / SAMPLES)
    pure = linear_kernel(0.7, np.zeros((SAMPLES, LENGTH)))
    slope = pure[:, -1] / line[-1] / processes.SLOPE[0]
    np.testing.assert_allclose(pure, np.outer(slope * processes.SLOPE[0], line), atol=1e-6)
    assert stats.kstest(slope, "norm").pvalue > 1e-3


def test_phases_are_exact_on_the_longest_circle():
    period = kernels.circle(MAX_LENGTH)
    lags, cycles = np.array([1, 12345, period // 2]), 65537
    turns = kernels.phase(jnp.int32(cycles), period, jnp.asarray(lags, jnp.int32))
    np.testing.assert_array_equal(turns, np.float32((lags * cycles) % period / period))


def test_laws_of_numbers():
    u = jax.random.uniform(jax.random.key(0), (SAMPLES,))
    assert stats.kstest(np.log10(kernels.log_uniform(u, (1e-5, 1e5))), stats.uniform(-5, 10).cdf).pvalue > 1e-3
    assert stats.kstest(np.asarray(kernels.normal(u)), "norm").pvalue > 1e-3
    assert np.isfinite(kernels.normal(jnp.array([0, 1 - 2.0**-23]))).all()
    shares = (0.2, 0.5, 0.3)
    found = np.bincount(np.asarray(kernels.choice(u, shares))) / SAMPLES
    np.testing.assert_allclose(found, shares, atol=5 * np.sqrt(0.25 / SAMPLES))
    assert kernels.either_sign(u).min() == -1


@pytest.fixture(scope="module")
def five_thousand():
    return np.asarray(synthetic_series(KEY, count=5000, length=128), np.float64)


def close(a, b):
    """Share of points that agree to 1e-3 standard deviations and four units in the last place.

    Programs of other shapes round differently, and a step or a grid turns that into another value at single points.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    tolerance = 1e-3 * b.std(1, keepdims=True) + 4 * 2.0**-23 * np.abs(b).max(1, keepdims=True)
    return (np.abs(a - b) <= tolerance).mean()


def test_a_key_gives_the_same_bits_and_another_one_others():
    first, again, other = (np.asarray(synthetic_series(key, count=9, length=16)) for key in (KEY, KEY, jax.random.key(1)))
    assert (first == again).all()
    assert not np.isclose(first, other).all(axis=1).any()


@pytest.mark.parametrize("count", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_neither_devices_nor_the_count_change_a_row(count, five_thousand):
    devices = len(jax.devices())
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    function = functools.partial(synthetic_series, count=count, length=128)
    program = jax.jit(function, out_shardings=NamedSharding(mesh, PartitionSpec("data"))).lower(KEY).compile()
    assert len(program(KEY).sharding.device_set) == devices
    assert close(program(KEY), five_thousand[:count]) > 0.999
    if count == devices * GROUP:  # a graph a device: nothing is exchanged, and no device draws more than its share
        text = program.as_text()
        exchanges = {name: text.count(f" {name}(") for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute")}
        ffts = text.count(" fft(")
        allowed = ffts if jax.__version_info__ < (0, 12) else 0  # older versions gather what goes into an FFT, and nothing else
        assert exchanges == {"all-gather": exchanges["all-gather"], "all-reduce": 0, "all-to-all": 0, "collective-permute": 0}
        assert exchanges["all-gather"] <= allowed
        assert f"u32[{devices * ROOTS},{PERIOD * 2}]" not in text
        assert f"u32[{ROOTS},{PERIOD * 2}]" in text


def test_series_are_finite_of_every_scale_and_rarely_constant(five_thousand):
    assert np.isfinite(five_thousand).all()
    std, mean = five_thousand.std(1), five_thousand.mean(1)
    # Constant up to the rounding of an offset.
    alive = std > 1e-6 * np.abs(five_thousand).max(1)
    assert alive.mean() > 0.98
    low, high = np.quantile(np.log10(std[alive]), [0.1, 0.9])
    assert low < -3.5
    assert high > 3.5
    assert np.log10(std[alive]).min() < -4.5
    assert np.log10(std[alive]).max() > 4.5
    ratio = np.abs(mean[alive]) / std[alive]
    assert 0.2 < (ratio < 1e-3).mean() < 0.5
    assert 0.05 < (ratio > 30).mean() < 0.3
    assert ratio.max() < 2e3
    assert 0.1 < (five_thousand.min(1) == 0).mean() < 0.35


@pytest.mark.parametrize("length", [2, 16, pytest.param(500, marks=pytest.mark.slow), 513])
def test_any_length_will_do(length):
    x = synthetic_series(jax.random.key(3), count=9, length=length)
    assert x.shape == (9, length)
    assert x.dtype == jnp.float32
    assert np.isfinite(x).all()


def test_float64_is_never_made(x64):
    drawn = jax.eval_shape(functools.partial(synthetic_series, count=8, length=16), jax.random.key(0))
    assert drawn.dtype == jnp.float32


@pytest.mark.parametrize(
    ("count", "length", "sentence"),
    [
        (0, 16, "count is 0; choose 1 or more synthetic series"),
        (4, 1, "length of synthetic series is 1; choose 2 to 1048576"),
        (4, MAX_LENGTH + 1, "length of synthetic series is 1048577"),
    ],
)
def test_refusals(count, length, sentence):
    with pytest.raises(InputError, match=sentence):
        synthetic_series(jax.random.key(0), count=count, length=length)


def correlations(x, pairs):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.maximum(np.sqrt(np.square(x).sum(-1, keepdims=True)), 1e-30)
    return np.array([(x[:, i] * x[:, j]).sum(-1) for i, j in pairs])


def test_series_of_a_graph_depend_on_each_other_and_those_of_two_graphs_do_not(five_thousand):
    x = five_thousand[: 5000 // (2 * GROUP) * 2 * GROUP].reshape(-1, 2 * GROUP, 128)
    mixed = range(ROOTS, GROUP)
    within = correlations(x, [(i, j) for i in range(ROOTS) for j in mixed])
    between = correlations(x, [(i, GROUP + j) for i in range(ROOTS) for j in mixed])
    assert (np.abs(within) > 0.9).mean() > 3 * (np.abs(between) > 0.9).mean()
    # The mean of independent coefficients is zero within five standard errors; a pair of graphs gives one of them.
    assert abs(between.mean()) < 5 / np.sqrt(len(x))


def test_a_node_follows_its_parents_and_roots_follow_nothing():
    mix = jax.jit(jax.vmap(lambda key, roots: processes.causal_mixing(key, roots, GROUP)))
    keys = jax.random.split(jax.random.key(0), 200)
    roots = jax.random.normal(jax.random.key(1), (200, ROOTS, 100))
    before, after = mix(keys, roots), mix(keys, roots.at[:, 0].set(jax.random.normal(jax.random.key(2), (200, 100))))
    changed = np.abs(np.asarray(before - after)).max(-1) > 1e-3
    assert changed[:, 0].all()
    assert not changed[:, 1:ROOTS].any()
    share = changed[:, ROOTS:].mean(0)
    assert (share > 0.3).all()  # one sure parent of at most seven, and others two times in five
    assert (share < 1).all()
    np.testing.assert_allclose(np.asarray(before).mean(-1), 0, atol=1e-4)


def test_a_regime_begins_and_ends_at_a_change_point():
    own, other = jnp.zeros(64), jnp.ones(64)
    times = np.arange(64)
    # Happens, two of three changes, at 16 and 40; the third place is not used.
    x = processes.change_regimes(jnp.array([0.0, 0.5, 0.25, 0.625, 0.125]), own, other)
    assert (np.asarray(x) == ((times >= 16) & (times < 40))).all()
    assert (processes.change_regimes(jnp.array([processes.PROB_REGIMES, 0.5, 0.25, 0.625, 0.125]), own, other) == 0).all()


def test_events_pulses_and_exponentials():
    spike = processes.events(jnp.float32(0.65), jnp.array([[0, 0.5, 0.5, 0.9, 0.0]] + [[1.0] * 5] * 3), 100)
    step = processes.events(jnp.float32(0.8), jnp.array([[0, 0.5, 0.5, 0.9, 0.0]] + [[1.0] * 5] * 3), 100)
    height = np.sqrt(np.prod(processes.HEIGHT))
    np.testing.assert_allclose(
        np.asarray(spike)[[49, 50, 53]], [0, height, height * np.exp(-3 / processes.FADE_SPIKE[0])], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(step, np.where(np.arange(100) < 50, 0, height), rtol=1e-6)
    assert (processes.events(jnp.float32(0.1), jnp.zeros((4, 5)), 100) == 0).all()
    train = np.asarray(processes.pulses(jnp.array([0.0, 0.25, 0.5]), 64))
    assert train.max() <= 1
    assert train.min() >= 0
    rising, falling = (processes.exponential(jnp.array([0.5, side]), 50) for side in (1.0, 0.0))
    np.testing.assert_allclose(falling[0], 1)
    assert (np.diff(rising) > 0).all()


def test_a_sensor_clips_rounds_and_freezes():
    x = jax.random.normal(jax.random.key(0), (200,))
    clipped = sensors.saturate(jnp.array([0.0, 0.0, 0.5]), x)
    assert np.abs(clipped).max() == np.float32(sensors.SATURATION[0])
    assert (sensors.saturate(jnp.array([0.0, 0.0, 0.0]), x) == jnp.maximum(x, -sensors.SATURATION[0])).all()
    rounded = sensors.quantise(jnp.array([0.0, 1.0]), x)
    np.testing.assert_allclose(rounded, np.round(rounded))
    frozen = np.asarray(sensors.freeze(jnp.array([0.0, 0.5, 0.5]), x))
    assert (frozen != x).sum() == int(np.ceil(np.sqrt(np.prod(sensors.FROZEN)) * 200)) - 1
    assert (frozen[100:110] == x[100]).all()
    untouched = jnp.array([0.99, 0.5, 0.5])
    assert (sensors.freeze(untouched, sensors.quantise(untouched[:2], sensors.saturate(untouched, x))) == x).all()
