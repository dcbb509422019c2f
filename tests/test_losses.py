"""The properties of every loss: each is one test over the table of losses."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from cases import LOSSES, directional_derivatives, over

from nnjax import losses, metrics


def example(case, dtype="float32", scale=2.0):
    """Return prediction and target; integer targets stay integers."""
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(scale=scale, size=case.shape), case.target(rng)
    real = np.issubdtype(target.dtype, np.floating)
    return jnp.asarray(prediction, dtype), jnp.asarray(target, dtype if real else jnp.int32)


@over(LOSSES)
def test_equals_its_formula_for_each_example(case):
    with jax.enable_x64(True):
        prediction, target = example(case, "float64")
        loss = case.loss(prediction, target)
        assert loss.shape == (len(prediction),)
        np.testing.assert_allclose(loss, case.reference(np.asarray(prediction), np.asarray(target)), rtol=1e-12)


@over(LOSSES)
def test_jit_and_vmap_equal_a_loop(case):
    prediction, target = example(case)
    loss = case.loss(prediction, target)
    chex.assert_trees_all_close(jax.jit(case.loss)(prediction, target), loss, rtol=1e-6)
    one_by_one = jax.vmap(lambda p, t: case.loss(p[None], t[None])[0])(prediction, target)
    chex.assert_trees_all_close(one_by_one, loss, rtol=1e-6)
    members = jax.vmap(case.loss, in_axes=(0, None))(jnp.stack([prediction, -prediction]), target)
    chex.assert_trees_all_close(members, jnp.stack([loss, case.loss(-prediction, target)]), rtol=1e-6)


@over(LOSSES)
def test_gradient_equals_finite_differences(case):
    with jax.enable_x64(True):
        prediction, target = example(case, "float64")
        weights = jnp.asarray(np.random.default_rng(1).normal(size=len(prediction)))
        exact, numerical = directional_derivatives(lambda p: jnp.vdot(weights, case.loss(p, target)), prediction)
        np.testing.assert_allclose(exact, numerical, rtol=1e-6, atol=1e-9)


@over(LOSSES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtype_is_that_of_prediction_and_real_target_together(case, dtype):
    with jax.enable_x64(True):
        prediction, target = example(case, dtype)
        real = jnp.issubdtype(target.dtype, jnp.floating)
        for other in (target, target.astype("float32" if real else "uint8")):
            loss = case.loss(prediction, other)
            wide = np.promote_types(prediction.dtype, other.dtype) if real else jnp.dtype(dtype)
            assert loss.dtype == wide
            assert not loss.weak_type
            wide = np.asarray(other, "float64" if real else "int32")
            reference = case.reference(np.asarray(prediction, "float64"), wide)
            tolerance = {"bfloat16": 0.05, "float32": 1e-5, "float64": 1e-12}[dtype]
            np.testing.assert_allclose(loss.astype("float64"), reference, rtol=tolerance, atol=tolerance)


@over(LOSSES)
def test_second_call_traces_nothing(case):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def loss(prediction, target):
        return case.loss(prediction, target)

    for _ in range(2):
        loss(*example(case))


@over([case for case in LOSSES if case.name != "poisson_nll"])  # whose rate is an exponential
def test_large_predictions_have_finite_and_exact_losses(case):
    """All combinations of ±1e4 are exact up to rounding, with finite gradients."""
    _, target = example(case)
    signs = np.random.default_rng(2).choice([-1e4, 1e4], size=(20, *case.shape)).astype(np.float32)
    value_and_grad = jax.jit(jax.vmap(jax.value_and_grad(lambda p: case.loss(p, target).sum())))
    values, gradients = value_and_grad(jnp.asarray(signs))
    wide = np.asarray(target, np.int64 if jnp.issubdtype(target.dtype, jnp.integer) else np.float64)
    expected = [case.reference(np.float64(p), wide).sum() for p in signs]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-2)
    assert np.isfinite(gradients).all()


@over([case for case in LOSSES if case.name.startswith("cross_entropy")])
def test_cross_entropy_depends_only_on_differences_of_logits(case):
    """Logits around 1e4 are as exact as logits around 0, because the shift preserves integers."""
    prediction, target = example(case)
    prediction = prediction.round()
    loss = case.loss(prediction, target)
    np.testing.assert_allclose(case.loss(prediction + 1e4, target), loss, rtol=1e-5)
    np.testing.assert_allclose(case.loss(prediction - 1e4, target), loss, rtol=1e-5)


def test_a_class_that_is_ruled_out_and_has_no_probability_costs_nothing():
    """A masked logit is -inf; 0 · log 0 is 0 in a cross-entropy."""
    prediction, rows = jnp.array([[1.0, 2.0, -jnp.inf]]), jnp.array([[0.25, 0.75, 0.0]])
    expected = losses.cross_entropy(prediction[:, :2], rows[:, :2])
    np.testing.assert_allclose(losses.cross_entropy(prediction, rows), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.cross_entropy(prediction, jnp.array([1])), [np.log1p(np.exp(-1.0))], rtol=1e-6)


def test_confident_predictions_have_a_loss_that_is_not_rounded_away():
    prediction = jnp.array([[20.0, 10.0]])
    exact = np.log1p(np.exp(-10.0))
    np.testing.assert_allclose(losses.cross_entropy(prediction, jnp.array([0])), [exact], rtol=5e-3)
    np.testing.assert_allclose(losses.cross_entropy(prediction, jnp.array([[1.0, 0.0]])), [exact], rtol=5e-3)
    np.testing.assert_allclose(losses.binary_cross_entropy(jnp.array([10.0]), jnp.array([1])), [exact], rtol=1e-5)


def test_gaussian_nll_is_the_density_and_its_minimum_the_mean_and_the_variance():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        mean, log_variance, target = (jnp.asarray(rng.normal(size=(4, 3))) for _ in range(3))
        expected = -scipy.stats.norm.logpdf(target, mean, np.exp(log_variance / 2)).sum(1)
        np.testing.assert_allclose(losses.gaussian_nll((mean, log_variance), target), expected, rtol=1e-12)
        sample = jnp.asarray(rng.normal(3.0, 2.0, (1000, 1)))
        at = (jnp.full((1000, 1), sample.mean()), jnp.full((1000, 1), jnp.log(sample.var())))
        gradients = jax.grad(lambda at: losses.gaussian_nll(at, sample).sum())(at)
        np.testing.assert_allclose([g.sum() for g in gradients], 0.0, atol=1e-9)


def test_info_nce_finds_partners_in_both_directions_like_its_formula():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3))
    cosines = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T / 0.2
    with jax.enable_x64(True):
        for x, y, logits in ((a, b, cosines), (b, a, cosines.T)):
            loss = losses.info_nce(jnp.asarray(x), jnp.asarray(y), temperature=0.2)
            np.testing.assert_allclose(loss, -np.diag(scipy.special.log_softmax(logits, 1)), rtol=1e-12)


def test_gradients_are_finite_where_a_length_or_a_probability_is_0_or_1():
    zero, one = jnp.zeros((2, 3)), jnp.ones((2, 3))
    sure = jnp.array([[200.0, 0.0, 0.0]])
    for value in (
        jax.grad(lambda z: losses.cosine_distance(z, one).sum())(zero),
        jax.grad(lambda z: losses.info_nce(z, one).sum())(zero),
        *(
            jax.grad(lambda z, g=gamma: losses.focal(z, jnp.array([0]), gamma=g).sum())(sure)
            for gamma in (0.0, 0.5, 2.0)
        ),
        jax.grad(lambda z: losses.kl_divergence(z, jnp.array([[1.0, 0.0, 0.0]])).sum())(sure),
    ):
        assert np.isfinite(value).all()


WRONG_VALUES = [  # predictions and targets that the loss is not made for give NaN, and only theirs
    (losses.hinge, jnp.ones((3, 1)), jnp.array([[1], [0], [-1]])),
    (losses.poisson_nll, jnp.ones((3, 1)), jnp.array([[1], [-2], [0]])),
    (losses.focal, jnp.ones((3, 2)), jnp.array([1, 2, 0])),
    (losses.ctc, jnp.ones((3, 5, 3)), jnp.array([[1, 2], [0, 1], [2, -1]])),
    (losses.ctc, jnp.ones((3, 5, 3)), jnp.array([[1, 2], [3, 1], [2, -1]])),
]


@pytest.mark.parametrize(("loss", "prediction", "target"), WRONG_VALUES)
def test_a_target_that_is_no_class_or_count_is_nan(loss, prediction, target):
    np.testing.assert_array_equal(np.isnan(loss(prediction, target)), [False, True, False])


@pytest.mark.parametrize("blank", range(4))
def test_any_class_may_be_the_blank_of_ctc(blank):
    logits, target = jax.random.normal(jax.random.key(0), (3, 6, 4)), jnp.array([[1, 2], [3, 3], [2, -1]])
    names = jnp.array([blank, *(c for c in range(4) if c != blank)])  # the class that is called 0, 1, 2, 3 above
    renamed = jnp.zeros_like(logits).at[..., names].set(logits)
    loss = losses.ctc(renamed, jnp.where(target < 0, -1, names[target]), blank=blank)
    np.testing.assert_allclose(loss, losses.ctc(logits, target), rtol=1e-5)


NEW_MISTAKES = {
    "gaussian of one array": (lambda: losses.gaussian_nll(jnp.zeros((4, 2)), jnp.zeros((4, 1))), TypeError,
                              r"got an array \(4, 2\); end the network with lambda y: tuple\(jnp.split\(y, 2, -1\)\)"),
    "gaussian_nll, array": (lambda: losses.gaussian_nll(jnp.ones((2, 2)), jnp.ones((2, 1))), TypeError, "log_variance"),
    "gaussian_nll, shapes": (lambda: losses.gaussian_nll((jnp.ones((2, 1)), jnp.ones((2, 2))), jnp.ones((2, 1))),
                             ValueError, "same shape"),
    "kl_divergence, labels": (lambda: losses.kl_divergence(jnp.ones((2, 3)), jnp.array([0, 1])), TypeError,
                              "use cross_entropy"),
    "focal, probabilities": (lambda: losses.focal(jnp.ones((2, 3)), jnp.ones((2, 3))), TypeError, "integers"),
    "info_nce, axes": (lambda: losses.info_nce(jnp.ones((2, 3, 1)), jnp.ones((2, 3, 1))), ValueError, "features"),
    "quantile, percent": (lambda: losses.quantile(jnp.ones(2), jnp.ones(2), q=50), ValueError, r"\[0, 1\], got 50"),
    "cross_entropy, weights of examples": (
        lambda: losses.cross_entropy(jnp.ones((2, 3, 4)), (jnp.ones((2, 3), int), jnp.ones(2))), ValueError,
        r"per-position weights must have the shape \(2, 3\), got \(2,\)"),
    "cross_entropy, complex weights": (
        lambda: losses.cross_entropy(jnp.ones((2, 3)), (jnp.ones(2, int), jnp.array([1j, 1j]))), TypeError, "be real"),
    "cross_entropy, ignored text": (
        lambda: losses.cross_entropy(jnp.ones((2, 3)), jnp.ones(2, int), ignore_index="pad"), TypeError,
        "ignore_index must be an integer, got 'pad'"),
    "cross_entropy, ignored probabilities": (
        lambda: losses.cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 3)), ignore_index=0), TypeError,
        r"ignore_index needs integer labels, got float32; pass \(target, weights\)"),
    "ctc, axes": (lambda: losses.ctc(jnp.ones((2, 3)), jnp.ones((2, 3), int)), ValueError, "frames"),
    "ctc, real labels": (lambda: losses.ctc(jnp.ones((2, 3, 4)), jnp.ones((2, 3))), TypeError, "integers"),
    "ctc, blank": (lambda: losses.ctc(jnp.ones((2, 3, 4)), jnp.ones((2, 3), int), blank=4), ValueError, "0 … 3, got 4"),
    "ctc, lengths": (lambda: losses.ctc((jnp.ones((2, 3, 4)), jnp.ones(3, int)), jnp.ones((2, 3), int)), ValueError,
                     r"lengths must be \(2,\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", NEW_MISTAKES)
def test_mistakes_are_named(name):
    call, error, message = NEW_MISTAKES[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(4,), (4, 5)])
def test_labels_and_one_hot_rows_agree(smoothing, shape):
    rng = np.random.default_rng(0)
    prediction, labels = jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32), jnp.asarray(rng.integers(0, 3, shape))
    loss = functools.partial(losses.cross_entropy, label_smoothing=smoothing)
    rows = jax.nn.one_hot(labels, 3)
    np.testing.assert_allclose(loss(prediction, labels), loss(prediction, rows), rtol=1e-5)
    both = [jax.grad(lambda p, t=target: loss(p, t).sum())(prediction) for target in (labels, rows)]
    np.testing.assert_allclose(*both, atol=1e-6)


def test_two_classes_are_one_yes_or_no_question():
    z, t = jnp.array([[-3.0], [0.5], [2.0]]), jnp.array([[1], [0], [1]])
    pair = jnp.concatenate([jnp.zeros_like(z), z], 1)
    np.testing.assert_allclose(losses.binary_cross_entropy(z, t), losses.cross_entropy(pair, t[:, 0]), rtol=1e-6)


@pytest.mark.parametrize("label", [-1, -3, 3, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_out_of_range_is_nan_and_the_others_are_not(label, smoothing):
    loss = functools.partial(losses.cross_entropy, label_smoothing=smoothing)
    values = jax.jit(loss)(jnp.zeros((3, 3)), jnp.array([0, label, 2]))
    np.testing.assert_array_equal(np.isnan(values), [False, True, False])


SEQUENCES = jnp.array([[0, -1, -1, -1, -1], [1, 2, 0, 1, 2], [-1, 0, -1, 2, 1], [-1] * 5])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ignored", [-1, -100, 1, 255])
def test_numbers_of_positions_as_weights_give_the_loss_of_torch(ignored, smoothing):
    torch = pytest.importorskip("torch")
    labels = jnp.where(SEQUENCES < 0, ignored, SEQUENCES)
    prediction = np.random.default_rng(0).normal(size=(4, 5, 3))
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(prediction).reshape(-1, 3),
        torch.tensor(np.asarray(labels)).long().reshape(-1),
        ignore_index=ignored,
        label_smoothing=smoothing,
    )
    with jax.enable_x64(True):
        loss = functools.partial(losses.cross_entropy, ignore_index=ignored, label_smoothing=smoothing)
        values, counts = loss(jnp.asarray(prediction), labels), (labels != ignored).sum(-1)
        np.testing.assert_allclose(metrics.weighted_mean(values, counts), expected, rtol=1e-12)
        assert values[3] == 0  # without positions


def test_weights_of_classes_give_the_loss_of_torch():
    torch = pytest.importorskip("torch")
    prediction, labels = np.random.default_rng(0).normal(size=(4, 5, 3)), np.asarray(jnp.maximum(SEQUENCES, 0))
    of_classes = np.array([0.5, 2.0, 3.0])
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(prediction).reshape(-1, 3),
        torch.tensor(labels).long().reshape(-1),
        weight=torch.tensor(of_classes),
    )
    with jax.enable_x64(True):
        weights = jnp.asarray(of_classes[labels])
        values = losses.cross_entropy(jnp.asarray(prediction), (jnp.asarray(labels), weights))
        np.testing.assert_allclose((values * weights.sum(-1)).sum() / weights.sum(), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.focal, losses.kl_divergence])
@pytest.mark.parametrize("mask", ["bool", "int32", "uint8", "float32", "bfloat16"])
def test_a_mask_leaves_out_positions_whatever_is_in_them(loss, mask):
    """NaN and labels that are not a class change neither the loss nor the gradient."""
    rng = np.random.default_rng(0)
    prediction, counts = jnp.asarray(rng.normal(size=(4, 5, 3)), jnp.float32), SEQUENCES >= 0
    target = jnp.maximum(SEQUENCES, 0)
    target = jax.nn.one_hot(target, 3) if loss is losses.kl_divergence else target
    wrong = jnp.where(counts[..., None], target, jnp.nan) if target.ndim == 3 else SEQUENCES
    broken = jnp.where(counts[..., None], prediction, jnp.nan)
    value, gradient = jax.value_and_grad(lambda z: loss(z, (wrong, counts.astype(mask))).sum())(broken)
    expected = sum(
        loss(z[None, c], t[None, c])[0] for z, t, c in zip(prediction, target, counts, strict=True) if c.any()
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert value.dtype == jnp.float32
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).sum(-1) > 0).tolist() == counts.tolist()


def test_only_the_label_that_is_ignored_is_ignored():
    loss = functools.partial(losses.cross_entropy, ignore_index=-1)
    np.testing.assert_array_equal(np.isnan(loss(jnp.zeros((4, 3)), jnp.array([-1, -2, 3, 0]))), [0, 1, 1, 0])
    logits = jnp.arange(600.0).reshape(1, 2, 300)
    for dtype in ("uint8", "uint32"):  # which do not have -1
        labels = jnp.array([[0, 255]], dtype)
        np.testing.assert_allclose(loss(logits, labels), losses.cross_entropy(logits, labels), rtol=1e-6)
    negative = (jnp.zeros((2, 2), int), jnp.array([[1.0, 1.0], [2.0, -1.0]]))
    np.testing.assert_array_equal(np.isnan(losses.cross_entropy(jnp.zeros((2, 2, 3)), negative)), [False, True])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32"])
def test_labels_of_every_integer_type_are_accepted(dtype):
    prediction = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
    labels = jnp.array([0, 2, 1])
    np.testing.assert_array_equal(
        losses.cross_entropy(prediction, labels.astype(dtype)), losses.cross_entropy(prediction, labels)
    )


def test_options_can_be_swept():
    prediction, labels = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32), jnp.array([0, 1, 2, 0])
    values = jnp.array([0.0, 0.1, 1.0])
    many = jax.vmap(lambda s: losses.cross_entropy(prediction, labels, label_smoothing=s))(values)
    for row, s in zip(many, (0.0, 0.1, 1.0), strict=True):
        np.testing.assert_allclose(row, losses.cross_entropy(prediction, labels, label_smoothing=s), rtol=1e-5)
    deltas = jax.vmap(lambda d: losses.huber(prediction, jnp.zeros((4, 3)), delta=d))(jnp.array([0.1, 2.0]))
    for row, d in zip(deltas, (0.1, 2.0), strict=True):
        np.testing.assert_allclose(row, losses.huber(prediction, jnp.zeros((4, 3)), delta=d), rtol=1e-5)


Z, N = jnp.ones((4, 3)), jnp.ones(4)
SAME = [losses.squared_error, losses.mean_squared_error, losses.huber, losses.binary_cross_entropy]


@pytest.mark.parametrize("loss", SAME)
@pytest.mark.parametrize(
    ("prediction", "target", "says"),
    [
        (N[:, None], N, r"got \(4, 1\) and \(4,\); use y\[:, None\]"),
        (N, N[:, None], r"got \(4,\) and \(4, 1\)"),
        (Z, N, r"got \(4, 3\) and \(4,\)"),
        (Z, Z[:3], r"got \(4, 3\) and \(3, 3\)"),
        (Z, Z[:, :1], r"got \(4, 3\) and \(4, 1\)"),
        (N, N[:1], r"got \(4,\) and \(1,\)"),
        (N[0], N[0], r"first axis must be the batch, got scalars"),
    ],
    ids=str,
)
def test_unequal_shapes_are_errors_and_never_broadcast(loss, prediction, target, says):
    with pytest.raises(ValueError, match=rf"^{loss.__name__}: .*{says}"):
        loss(prediction, target)


LABEL_ERRORS = [
    ("float labels", Z, N, TypeError, "labels must be integers, got float32; for real targets use squared_error"),
    ("one-hot integers", Z, jnp.ones((4, 3), int), ValueError, r"must be \(4,\), got \(4, 3\); pass y.argmax(-1)"),
    ("column of labels", Z, jnp.ones((4, 1), int), ValueError, r"must be \(4,\), got \(4, 1\); use y[:, 0]"),
    ("too few labels", Z, jnp.ones(3, int), ValueError, r"integer labels must be \(4,\), got \(3,\)"),
    ("probabilities of other classes", Z, jnp.ones((4, 2)), ValueError, r"the logits \(4, 3\), got \(4, 2\)"),
    ("one row of probabilities", Z, jnp.ones((1, 3)), ValueError, r"the logits \(4, 3\), got \(1, 3\)"),
    ("booleans", Z, jnp.ones((4, 3), bool), TypeError, "integer labels or probabilities, got bool"),
    ("no classes", N, jnp.ones(4, int), ValueError, r"logits (batch, classes), got \(4,\)"),
]


@pytest.mark.parametrize("row", LABEL_ERRORS, ids=lambda row: row[0])
def test_wrong_labels_are_errors(row):
    _, prediction, target, kind, says = row
    pattern = re.escape(says.replace("\\", ""))
    with pytest.raises(kind, match=rf"^cross_entropy: .*{pattern}"):
        losses.cross_entropy(prediction, target)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_options_out_of_range_are_errors(value):
    with pytest.raises(ValueError, match=rf"label_smoothing must be in \[0, 1\], got {value:g}"):
        losses.cross_entropy(Z, jnp.ones(4, int), label_smoothing=value)


@pytest.mark.parametrize("value", [-0.1, 0.0, float("inf")])
def test_delta_out_of_range_is_an_error(value):
    with pytest.raises(ValueError, match=rf"delta must be in \(0, inf\), got {value:g}"):
        losses.huber(Z, Z, delta=value)
