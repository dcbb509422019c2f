"""Every loss and metric, for every dtype, equals its formula in float64 or refuses the input with a clear message.

The tables are inputs × outcome: dtypes of prediction, target and weights, batches of 0, 1 and 4 examples, entries that
are NaN or infinite, and labels that are no classes.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from nnjax import losses, metrics, nn, uncertainty

DTYPES = ["int8", "uint8", "int32", "bool", "float16", "bfloat16", "float32", "float64", "complex64"]
WEIGHTED = [("float32", "int32"), ("bool", "float32"), ("bfloat16", "uint8"), ("float64", "int8")]
EXACT = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "float64": 1e-12}  # relative tolerance of a result


def real(dtype, rows, salt):
    """Return numbers (rows, 3) that the dtype holds exactly, as an array of it and in float64."""
    values = np.random.default_rng(salt).normal(0, 3, (rows, 3)).round(1)
    if dtype == "bool":
        values = values > 0
    if dtype in ("uint8", "int32", "int8"):
        values = values.round() % 7 if dtype == "uint8" else values.round()
    array = jnp.asarray(values).astype(dtype)
    return array, np.asarray(array).astype(complex if dtype == "complex64" else "float64")


def weights_of(dtype, rows):
    return jnp.asarray([3, 1, 0, 2][:rows]).astype(dtype)


def _rows(values):
    return values.reshape(len(values), -1)


def _squared(z, t):
    return np.square(z - t).sum(1)


def _mean_squared(z, t):
    return np.square(z - t).mean(1)


def _huber(z, t):
    return scipy.special.huber(0.5, z - t).sum(1)


def _binary(z, t):
    return -(t * scipy.special.log_expit(z) + (1 - t) * scipy.special.log_expit(-z)).sum(1)


def _cross_entropy(z, q):
    return -(q * scipy.special.log_softmax(z, -1)).sum(1)


LOSSES = {
    "squared_error": (losses.squared_error, _squared),
    "mean_squared_error": (losses.mean_squared_error, _mean_squared),
    "huber": (lambda z, t: losses.huber(z, t, delta=0.5), _huber),
    "binary_cross_entropy": (losses.binary_cross_entropy, _binary),
    "cross_entropy": (losses.cross_entropy, _cross_entropy),
}


def average(values, w):
    return (w * values).sum() / w.sum() if w.sum() else np.nan


def _rmse(z, t, w):
    return np.sqrt(average(_mean_squared(z, t), w))


def _r2(z, t, w):
    if not w.sum():
        return np.nan
    variance = (w[:, None] * (t - (w[:, None] * t).sum(0) / w.sum()) ** 2).sum(0)
    unexplained = (w[:, None] * (t - z) ** 2).sum(0)
    constant = np.isclose(variance, 0, atol=1e-12)
    return np.where(constant, unexplained == 0, 1 - unexplained / np.where(constant, 1, variance)).mean()


def _accuracy(z, labels, w):
    return average(z.argmax(1) == labels, w)


def _nll(z, labels, w):
    return average(_cross_entropy(z, np.eye(3)[labels]), w)


def _brier(z, labels, w):
    return average(((scipy.special.softmax(z, -1) - np.eye(3)[labels]) ** 2).sum(1), w)


def _ece(z, labels, w):
    if not w.sum():
        return np.nan
    p = scipy.special.softmax(z, -1)
    confidence, correct = p.max(1), p.argmax(1) == labels
    places = np.ceil(confidence * 15 - 1e-9)
    gaps = [abs((w * (correct - confidence))[places == place].sum()) for place in np.unique(places)]
    return sum(gaps) / w.sum()


REGRESSION = {"rmse": (metrics.rmse, _rmse), "r2": (metrics.r2, _r2)}
CLASSIFICATION = {
    "accuracy": (metrics.accuracy, _accuracy),
    "nll": (metrics.nll, _nll),
    "brier": (metrics.brier, _brier),
    "expected_calibration_error": (metrics.expected_calibration_error, _ece),
}


def outcome(call, expected, dtypes, where):
    """Return None if the call gives the expected numbers, or refuses in its own words if None is expected."""
    try:
        with np.errstate(all="ignore"):
            value = call()
    except Exception as error:
        text = str(error)
        if not text.startswith(where) or "got" not in text:
            return f"{type(error).__name__}: {text[:80]}"
        return f"refused: {text[:80]}" if expected is not None else None
    if expected is None or not jnp.issubdtype(value.dtype, jnp.floating):
        return f"accepted, {value.dtype}"
    floats = [d for d in dtypes if d in EXACT]
    tolerance = max([EXACT[d] for d in floats] or [1e-5])
    value = np.asarray(value).astype("float64")
    if value.shape != np.shape(expected) or not np.allclose(
        value, expected, rtol=tolerance, atol=tolerance, equal_nan=True
    ):
        return f"{value}, not {expected}"
    return None


def checked(rows):
    wrong = [f"{name}: {result}" for name, result in rows if result is not None]
    assert not wrong, f"{len(wrong)} wrong: " + "; ".join(wrong[:8])


def loss_rows(name):
    loss, reference = LOSSES[name]
    for a, b, n in itertools.product(DTYPES, DTYPES, [0, 1, 4]):
        (z, z64), (t, t64) = real(a, n, 1), real(b, n, 2)
        if name == "cross_entropy" and b not in EXACT:
            t, t64 = t[:, 0] % 3 if b not in ("bool", "complex64") else t[:, 0], t64[:, 0]
            t64 = np.eye(3)[t64.real.astype(int) % 3]
        if name == "cross_entropy" and b in EXACT:
            t64 = np.abs(t64)
            t = jnp.asarray(t64).astype(b)
        if name == "binary_cross_entropy":
            t64 = (t64.real > 0).astype("float64")
            t = jnp.asarray(t64).astype(b)
        refused = "complex64" in (a, b) or (name == "cross_entropy" and b == "bool")
        expected = None if refused else reference(z64, t64)
        yield f"{a}, {b}, {n} rows", outcome(lambda: loss(z, t), expected, [a, b], name)  # noqa: B023


def metric_rows(name):
    metric, reference = REGRESSION.get(name) or CLASSIFICATION[name]
    for a, b, w, n in itertools.product(DTYPES, DTYPES, [None, *DTYPES], [0, 1, 4]):
        if w not in (None, "float32") and (n < 4 or (a, b) not in WEIGHTED):
            continue
        (z, z64), (t, t64) = real(a, n, 1), real(b, n, 2)
        if name in CLASSIFICATION:
            if b not in ("int8", "uint8", "int32"):
                continue
            t, t64 = t[:, 0] % 3, t64[:, 0].astype(int) % 3
        weights = None if w is None else weights_of(w, n)
        w64 = np.ones(n) if w is None else np.asarray(weights).astype(complex if w == "complex64" else float)
        if "complex64" not in (a, b, w):
            with np.errstate(all="ignore"):
                expected = reference(z64, t64, w64) if n else np.nan
        else:
            expected = None
        kinds = [a, b] if w is None else [a, b, w]
        yield f"{a}, {b}, weights {w}, {n} rows", outcome(lambda: metric(z, t, weights), expected, kinds, name)  # noqa: B023


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_all_dtypes_equal_float64_or_refuse(name):
    with jax.enable_x64(True):
        checked(loss_rows(name))


@pytest.mark.parametrize("name", [*REGRESSION, *CLASSIFICATION])
def test_metrics_of_all_dtypes_equal_float64_or_refuse(name):
    with jax.enable_x64(True):
        checked(metric_rows(name))


# Single values, with the right answer -------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
LOGITS = jnp.array([[2.0, 0.0], [0.0, 2.0]])
VALUES = [  # call, right value
    ("yes or no, weighted", lambda: metrics.weighted_mean(jnp.array([True, False]), [3.0, 1.0]), 0.75),
    ("integers, real weights", lambda: metrics.weighted_mean(jnp.array([1, 0]), jnp.array([0.5, 0.5])), 0.5),
    ("8-bit sum", lambda: metrics.weighted_mean(jnp.full(300, 100, jnp.int8)), 100),
    ("rmse of integers", lambda: metrics.rmse(jnp.array([1, 2]), jnp.array([1.5, 2.5])), 0.5),
    ("rmse of bytes", lambda: metrics.rmse(jnp.array([0], jnp.uint8), jnp.array([255], jnp.uint8)), 255),
    ("r2 of integers", lambda: metrics.r2(jnp.array([1, 2, 3]), jnp.array([1.5, 2.0, 2.5])), 0),
    ("lists", lambda: losses.squared_error([[1]], [[0.5]]), [0.25]),
    ("bytes below zero", lambda: losses.squared_error(jnp.zeros((1, 1), jnp.uint8), jnp.ones((1, 1), jnp.uint8)), [1]),
    ("huber of integers", lambda: losses.huber(jnp.array([[3]]), jnp.array([[0]]), delta=0.5), [1.375]),
    ("huber of booleans", lambda: losses.huber([[True]], [[False]]), [0.5]),
    ("bfloat16 against float32",
     lambda: losses.squared_error(jnp.ones((1, 1), jnp.bfloat16), jnp.full((1, 1), 1.001)), [1e-6]),
    ("bfloat16 against integers",
     lambda: losses.squared_error(jnp.full((1, 1), 256, jnp.bfloat16), jnp.full((1, 1), 257)), [1]),
    ("smoothing of integer logits",
     lambda: losses.cross_entropy(jnp.array([[2, 0]]), jnp.array([0]), label_smoothing=0.2), [0.326928]),
    ("softmax of bytes", lambda: nn.softmax(jnp.array([0, 2], jnp.uint8)), [0.119203, 0.880797]),
    ("softmax of int8", lambda: nn.softmax(jnp.array([-100, 100], jnp.int8)), [0, 1]),
    ("softmax of booleans", lambda: nn.softmax(jnp.array([False, True])), [0.268941, 0.731059]),
    ("heaviside of integers", lambda: nn.heaviside(jnp.array([-1, 0, 2])), [0, 0, 1]),
    ("heaviside of NaN", lambda: nn.heaviside(jnp.array([NAN, -INF, INF])), [NAN, 0, 1]),
    ("scores of booleans, real weights",
     lambda: uncertainty.rejection_curve(jnp.array([True, False]), jnp.array([1, 2]), [3.0, 1.0])[1], [0.75, 1]),
    ("scores of integers", lambda: uncertainty.rejection_curve([3, 1], [0.1, 0.2])[1], [2, 3]),
    ("score NaN of weight 0", lambda: uncertainty.rejection_curve([NAN, 1.0], [0.1, 0.2], [0, 1])[1], [1, NAN]),
    ("negative variance", lambda: uncertainty.variance_decomposition(jnp.ones((2, 1, 1)), -jnp.ones((2, 1, 1))).total,
     [[NAN]]),
    # Labels that are no classes
    *((f"{metric.__name__} of label {label}",
       lambda metric=metric, label=label: metric(LOGITS, jnp.array([0, label])), NAN)
      for metric in (metrics.accuracy, metrics.nll, metrics.brier, metrics.expected_calibration_error)
      for label in (-1, -2, 2, 255)),
    ("accuracy of a NaN target", lambda: metrics.accuracy(LOGITS, jnp.array([[1, 0], [NAN, NAN]])), NAN),
    ("int8 label -1 of 300 classes", lambda: losses.cross_entropy(jnp.zeros((1, 300)), jnp.array([-1], jnp.int8)),
     [NAN]),
    ("uint8 label 255 of 300 classes", lambda: losses.cross_entropy(jnp.zeros((1, 300)), jnp.array([255], jnp.uint8)),
     [np.log(300)]),
    ("uint32 label", lambda: losses.cross_entropy(jnp.zeros((1, 2)), jnp.array([2**32 - 1], jnp.uint32)), [NAN]),
    ("yes or no of label 2", lambda: losses.binary_cross_entropy(jnp.zeros((2, 1)), jnp.array([[2], [1]])),
     [NAN, np.log(2)]),
    # Weights
    ("NaN of weight 0", lambda: metrics.weighted_mean(jnp.array([NAN, 3.0]), jnp.array([0.0, 2.0])), 3),
    ("inf of weight 0", lambda: metrics.rmse(jnp.array([INF, 3.0]), jnp.array([0.0, 1.0]), jnp.array([0, 1])), 2),
    ("label of weight 0", lambda: metrics.nll(jnp.zeros((2, 2)), jnp.array([7, 1]), jnp.array([0, 1])), np.log(2)),
    ("r2, NaN of weight 0",
     lambda: metrics.r2(jnp.array([NAN, 1, 2, 4]), jnp.array([9.0, 1, 2, 3]), [0, 1, 1, 1]), 0.5),
    ("ECE, NaN of weight 0",
     lambda: metrics.expected_calibration_error(jnp.array([[NAN, 0], [0, 0]]), jnp.array([0, 0]), [0, 1]), 0.5),
    ("weights 0", lambda: metrics.weighted_mean(jnp.ones(2), jnp.zeros(2)), NAN),
    ("accuracy, weights 0", lambda: metrics.accuracy(LOGITS, jnp.array([0, 1]), jnp.zeros(2)), NAN),
    ("negative weight", lambda: metrics.weighted_mean(jnp.ones(2), jnp.array([2, -1])), NAN),
    ("no examples", lambda: metrics.weighted_mean(jnp.ones(0), jnp.ones(0)), NAN),
    # Constant targets
    ("r2, constant, exact", lambda: metrics.r2(jnp.full(3, 0.1), jnp.full(3, 0.1)), 1),
    ("r2, constant, wrong", lambda: metrics.r2(jnp.array([0.1, 0.1, 0.2]), jnp.full(3, 0.1)), 0),
    ("r2, one of two outputs constant",
     lambda: metrics.r2(jnp.array([[1.0, 5], [2, 5], [3, 6]]), jnp.array([[1.0, 5], [2, 5], [3, 5]])), 0.5),
    ("r2, constant where weighted", lambda: metrics.r2(jnp.ones(3), jnp.array([7.0, 2, 2]), jnp.array([0, 1, 1])), 0),
    ("r2, NaN", lambda: metrics.r2(jnp.array([NAN, 1.0]), jnp.ones(2)), NAN),
]  # fmt: skip


@pytest.mark.parametrize(("call", "right"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_value(call, right):
    value = call()
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, np.asarray(right, float), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(jax.jit(call)(), value, rtol=1e-5)


def test_masked_arrays_and_lost_digits_are_refused():
    with pytest.raises(TypeError, match=r"^rmse: prediction is a masked array.*filled"):
        metrics.rmse(np.ma.masked_array([1.0, 1e36], [0, 1]), jnp.ones(2))
    with pytest.raises(ValueError, match=r"^squared_error: target has integers that do not fit into int32"):
        losses.squared_error(jnp.ones(1), np.array([2**40]))
    with pytest.raises(ValueError, match=r"^cross_entropy: target has integers that do not fit into int32"):
        losses.cross_entropy(jnp.ones((1, 2)), np.array([2**32]))


# Layers -----------------------------------------------------------------------------------------------------------

key = jax.random.key(0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("traced", [False, True])
def test_dropout_has_its_rate_in_every_dtype(dtype, rate, traced):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.ones((1000, 2000), dtype)
        drop = lambda rate: nn.dropout(rate).apply((), (), x, train=True, key=key)[0]  # noqa: E731
        y = (jax.jit(drop)(jnp.float32(rate)) if traced else drop(rate)).astype("float32")
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(float((y == 0).mean()) - rate) < 4 * deviation
    np.testing.assert_allclose(y.max(), 1 / (1 - rate), rtol=max(EXACT[dtype], 1e-4))
    assert abs(float(y.mean()) - 1) < 4 * deviation / (1 - rate) + EXACT[dtype] / 2


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.3, 0.999, 0.9999])
def test_dropout_has_its_rate_to_many_digits(rate, monkeypatch):
    """Numbers at equal distances replace the random ones, which would need 10⁸ values to see an error of 0.7 %."""
    evenly = (np.arange(2**20, dtype=np.uint32) << 12) + 2**11
    halves = jnp.asarray((evenly << 16) | (evenly >> 16))
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: halves.astype(dtype).reshape(shape))
    y, _ = nn.dropout(rate).apply((), (), jnp.ones((2**10, 2**10)), train=True, key=key)
    np.testing.assert_allclose(float((y != 0).mean()), 1 - rate, atol=2**-19)


LAYERS = {
    "dense": (nn.dense(2), (4, 3)),
    "dense, features first": (nn.dense(2, features_first=True), (4, 3)),
    "conv": (nn.conv(2, 3), (4, 5, 3)),
    "max_pool": (nn.max_pool(2), (4, 4, 3)),
    "avg_pool": (nn.avg_pool(2, padding="SAME", strides=1), (4, 4, 3)),
    "global_avg_pool": (nn.global_avg_pool(), (4, 4, 3)),
    "layer_norm": (nn.layer_norm(), (4, 3)),
    "batch_norm": (nn.batch_norm(), (4, 3)),
    "scale": (nn.scale(0.5), (4, 3)),
    "first_features": (nn.first_features(2), (4, 3)),
    "dropout": (nn.dropout(0.5), (4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_refuse_what_is_not_floating(name, dtype, request):
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
        request.addfinalizer(lambda: jax.config.update("jax_enable_x64", False))
    layer, shape = LAYERS[name]
    start = layer.init(key, jnp.ones(shape, "float32"))
    x = jnp.ones(shape, bool if dtype == "bool" else float).astype(dtype)
    apply = lambda train: layer.apply(*start, x, train=train, key=key)[0]  # noqa: E731
    if jnp.issubdtype(x.dtype, jnp.floating):
        with jax.numpy_dtype_promotion("standard"):
            values = [np.asarray(apply(train)).astype(float) for train in (False, True)]
            exact = layer.apply(*start, jnp.ones(shape, "float32"), train=False)[0]
        assert all(np.isfinite(value).all() for value in values)
        np.testing.assert_allclose(values[0], exact, rtol=0.02, atol=1e-6)
        return
    for train in (False, True):
        with pytest.raises(
            TypeError, match=rf"^{name.split(',')[0]}.*: x must be floating-point, got {dtype}; cast it"
        ):
            apply(train)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_take_no_examples_and_keep_nan_in_its_row(name):
    layer, shape = LAYERS[name]
    start = layer.init(key, jnp.ones(shape))
    y, _ = layer.apply(*start, jnp.ones((0, *shape[1:])), train=False)
    one, _ = layer.apply(*start, jnp.ones((1, *shape[1:])), train=False)
    assert y.shape == (0, *one.shape[1:])
    for bad in (NAN, INF):
        y, _ = layer.apply(*start, jnp.ones(shape).at[2].set(bad), train=False)
        finite = np.isfinite(np.asarray(y)).reshape(4, -1)
        assert finite[[0, 1, 3]].all()
        assert not finite[2].all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_embedding_of_every_integer_dtype(dtype):
    layer = nn.embedding(300, 2)
    params, state = layer.init(key, jnp.zeros(1, dtype))
    last = min(int(jnp.iinfo(dtype).max), 299)
    y, _ = layer.apply(params, state, jnp.array([0, last]).astype(dtype), train=False)
    np.testing.assert_array_equal(y, params["w"][jnp.array([0, last])])
    if last == 299:
        y, _ = layer.apply(params, state, jnp.array([300]).astype(dtype), train=False)
        assert np.isnan(y).all()
    if dtype.startswith("int"):
        assert np.isnan(layer.apply(params, state, jnp.array([-1]).astype(dtype), train=False)[0]).all()


@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool], ids=lambda pool: pool.__name__)
@pytest.mark.parametrize("padding", [((2, 0),), ((0, 2),), ((3, 3),)])
def test_windows_wholly_in_padding_are_refused(pool, padding):
    layer, x = pool(2, strides=1, padding=padding), jnp.ones((1, 4, 1))
    with pytest.raises(ValueError, match=r"pool\(2\): a window is entirely in the padding .* must be smaller"):
        layer.apply((), (), x, train=False)
    y, _ = pool(2, strides=1, padding=((1, 1),)).apply((), (), x, train=False)
    np.testing.assert_array_equal(y, jnp.ones((1, 5, 1)))


def test_pools_of_empty_images_are_refused():
    with pytest.raises(ValueError, match="global_avg_pool: the spatial axes must not be empty"):
        nn.global_avg_pool().apply((), (), jnp.ones((1, 0, 3)), train=False)
    with pytest.raises(ValueError, match="a window is entirely in the padding"):
        nn.max_pool(2, padding=((1, 1),)).apply((), (), jnp.ones((1, 0, 3)), train=False)
