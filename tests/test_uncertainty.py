"""Predictions and uncertainty of ensembles: float64 formulas, counts by hand, and properties of every ensemble."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import losses, metrics, nn, uncertainty

rng = np.random.default_rng(0)
MEMBERS, N, CLASSES = 5, 40, 4
LOGITS = rng.normal(scale=2.0, size=(MEMBERS, N, CLASSES))
P = scipy.special.softmax(LOGITS, -1)
LABELS = np.array([rng.choice(CLASSES, p=row) for row in P.mean(0)])
MEANS, VARIANCES = rng.normal(size=(MEMBERS, N, 2)), rng.uniform(0.1, 2, (MEMBERS, N, 2))

logits32, labels32 = jnp.asarray(LOGITS, "float32"), jnp.asarray(LABELS, "int32")
means32, variances32 = jnp.asarray(MEANS, "float32"), jnp.asarray(VARIANCES, "float32")

PREDICTIONS = [uncertainty.log_mean_probabilities, uncertainty.mean_logits, uncertainty.vote]
OF_LOGITS = [*PREDICTIONS, uncertainty.entropy_decomposition]
functions = pytest.mark.parametrize("function", OF_LOGITS, ids=lambda f: f.__name__)


def entropy(p):
    return scipy.special.entr(p).sum(-1)


def ensembles():
    """Draw logits or means of a few members, small and huge; in few shapes, because each one is compiled."""
    shapes = st.sampled_from([(1, 2, 3), (2, 1, 1), (6, 3, 2)])
    scales, seeds = st.sampled_from([1e-3, 1.0, 30.0, 1e4]), st.integers(0, 2**31)
    return st.builds(
        lambda s, f, k: f * np.random.default_rng(k).uniform(-1, 1, s).astype("float32"), shapes, scales, seeds
    )


entropy_decomposition = jax.jit(uncertainty.entropy_decomposition)
variance_decomposition = jax.jit(uncertainty.variance_decomposition)
log_mean_probabilities, rejection_curve = (
    jax.jit(uncertainty.log_mean_probabilities), jax.jit(uncertainty.rejection_curve),
)  # fmt: skip


# Predictions ---------------------------------------------------------------------------------------------------------


def test_predictions_equal_their_formulas():
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS)
        np.testing.assert_allclose(uncertainty.log_mean_probabilities(logits), np.log(P.mean(0)), rtol=1e-12)
        np.testing.assert_allclose(uncertainty.mean_logits(logits), LOGITS.mean(0), rtol=1e-12)
        votes = np.stack([(LOGITS.argmax(-1) == k).mean(0) for k in range(CLASSES)], -1)
        np.testing.assert_allclose(jnp.exp(uncertainty.vote(logits)), votes, rtol=1e-12)


def test_three_members_by_hand():
    logits = jnp.log(jnp.array([[[0.6, 0.4]], [[0.6, 0.4]], [[0.01, 0.99]]]))  # two are unsure, one is sure
    np.testing.assert_allclose(jnp.exp(uncertainty.log_mean_probabilities(logits)), [[1.21 / 3, 1.79 / 3]], rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(uncertainty.vote(logits)), [[2 / 3, 1 / 3]], rtol=1e-5)
    odds = jnp.exp(jnp.diff(uncertainty.mean_logits(logits)))
    np.testing.assert_allclose(odds, [[(2 / 3 * 2 / 3 * 99) ** (1 / 3)]], rtol=1e-5)


@pytest.mark.parametrize("predict", PREDICTIONS, ids=lambda f: f.__name__)
def test_metrics_and_losses_accept_a_prediction(predict):
    prediction = predict(logits32)
    p = scipy.special.softmax(np.asarray(prediction, np.float64), -1)
    hit = p.argmax(-1) == LABELS
    np.testing.assert_allclose(metrics.accuracy(prediction, labels32), hit.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        metrics.brier(prediction, labels32), ((p - np.eye(CLASSES)[LABELS]) ** 2).sum(-1).mean(), rtol=1e-5
    )
    share, confidence, correct = metrics.reliability(prediction, labels32)
    np.testing.assert_allclose((share * confidence).sum(), p.max(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose((share * correct).sum(), hit.mean(), rtol=1e-5)
    error = metrics.expected_calibration_error(prediction, labels32)
    np.testing.assert_allclose(error, (share * abs(correct - confidence)).sum(), rtol=1e-5)


def test_nll_of_mean_probabilities_and_of_a_label_without_votes():
    prediction = uncertainty.log_mean_probabilities(logits32)
    expected = -np.log(P.mean(0)[np.arange(N), LABELS])
    np.testing.assert_allclose(losses.cross_entropy(prediction, labels32), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.nll(prediction, labels32), expected.mean(), rtol=1e-5)
    votes = uncertainty.vote(jnp.array([[[1.0, 0.0]], [[2.0, 0.0]]]))
    np.testing.assert_array_equal(votes, [[0, -np.inf]])
    assert metrics.nll(votes, jnp.array([0])) == 0
    assert metrics.nll(votes, jnp.array([1])) == np.inf


def test_mean_probabilities_are_stable_where_all_probabilities_underflow():
    logits = jnp.array([[[0.0, -1e4]], [[0.0, -2e4]]])
    np.testing.assert_allclose(uncertainty.log_mean_probabilities(logits), [[0, -1e4 - np.log(2)]], rtol=1e-6)


def test_a_class_masked_by_all_stays_masked():
    logits = jnp.array([[[0.0, 1.0, -jnp.inf]], [[1.0, 0.0, -jnp.inf]]])
    np.testing.assert_allclose(
        uncertainty.log_mean_probabilities(logits), [[-np.log(2), -np.log(2), -np.inf]], rtol=1e-6
    )
    whole, cut = uncertainty.entropy_decomposition(logits), uncertainty.entropy_decomposition(logits[..., :2])
    np.testing.assert_allclose(whole, cut, rtol=1e-6)
    half_masked = uncertainty.entropy_decomposition(logits.at[0, 0, 2].set(0.0))  # masked by one of two members
    p = scipy.special.softmax(np.array([[0, 1, 0], [1, 0, -np.inf]]), -1)
    np.testing.assert_allclose(half_masked.total[0], entropy(p.mean(0)), rtol=1e-6)
    np.testing.assert_allclose(half_masked.aleatoric[0], entropy(p).mean(), rtol=1e-6)


@functions
def test_a_diverged_member_gives_nan(function):
    values = jax.tree.leaves(function(logits32.at[1, 3].set(jnp.nan)))
    for value in values:
        rows = np.isnan(value).reshape(N, -1).all(-1)
        np.testing.assert_array_equal(np.flatnonzero(rows), [3])


# Uncertainty ---------------------------------------------------------------------------------------------------------


def test_entropy_decomposition_equals_its_formula():
    with jax.enable_x64(True):
        u = uncertainty.entropy_decomposition(jnp.asarray(LOGITS))
    np.testing.assert_allclose(u.total, entropy(P.mean(0)), rtol=1e-12)
    np.testing.assert_allclose(u.aleatoric, entropy(P).mean(0), rtol=1e-12)
    np.testing.assert_allclose(u.epistemic, entropy(P.mean(0)) - entropy(P).mean(0), rtol=1e-9)
    assert u.total.shape == u.aleatoric.shape == u.epistemic.shape == (N,)


def test_variance_decomposition_equals_the_law_of_total_variance():
    u = uncertainty.variance_decomposition(means32, variances32)
    np.testing.assert_allclose(u.aleatoric, VARIANCES.mean(0), rtol=1e-5)
    np.testing.assert_allclose(u.epistemic, MEANS.var(0), rtol=1e-5)
    np.testing.assert_allclose(u.total, VARIANCES.mean(0) + MEANS.var(0), rtol=1e-5)
    assert u.total.shape == (N, 2)
    draws = rng.normal(MEANS[:, 0, 0], np.sqrt(VARIANCES[:, 0, 0]), (200_000, MEMBERS))  # samples of the mixture
    np.testing.assert_allclose(u.total[0, 0], draws.var(), rtol=0.02)
    alone = uncertainty.variance_decomposition(means32)
    np.testing.assert_array_equal(alone.aleatoric, 0)
    np.testing.assert_array_equal(alone.total, u.epistemic)
    np.testing.assert_array_equal(alone.epistemic, u.epistemic)


def test_members_at_odds_and_members_in_doubt():
    sure = jnp.array([[[50.0, -50.0]], [[-50.0, 50.0]]])
    np.testing.assert_allclose(uncertainty.entropy_decomposition(sure), [[np.log(2)], [0], [np.log(2)]], atol=1e-6)
    doubt = jnp.zeros((3, 1, 4))
    np.testing.assert_allclose(uncertainty.entropy_decomposition(doubt), [[np.log(4)], [np.log(4)], [0]], rtol=1e-6)


@pytest.mark.parametrize("members", [1, 3, 49, 100])
@pytest.mark.parametrize("transform", [jax.jit, lambda f: f], ids=["jit", "eager"])
def test_members_that_agree_have_no_epistemic_uncertainty_bit_for_bit(members, transform):
    one = logits32[:1]
    u = transform(uncertainty.entropy_decomposition)(jnp.tile(one, (members, 1, 1)))
    np.testing.assert_array_equal(u.epistemic, 0)
    np.testing.assert_allclose(u.total, entropy(P[0]), rtol=1e-4, atol=1e-6)
    u = transform(uncertainty.variance_decomposition)(jnp.tile(means32[:1] + 1e3, (members, 1, 1)))
    np.testing.assert_array_equal(u.epistemic, 0)


def test_digits_are_kept_where_members_nearly_agree():
    near = LOGITS[:1] + 1e-3 * rng.normal(size=LOGITS.shape)
    near = near.astype("float32")
    wide = scipy.special.softmax(near.astype("float64"), -1)
    expected = entropy(wide.mean(0)) - entropy(wide).mean(0)
    assert expected.max() < 1e-6  # in float32 the difference of two entropies would be noise
    np.testing.assert_allclose(uncertainty.entropy_decomposition(jnp.asarray(near)).epistemic, expected, rtol=5e-3)
    offset = 1e3 + MEANS.astype("float32") * np.float32(0.01)
    expected = offset.astype("float64").var(0)
    np.testing.assert_allclose(uncertainty.variance_decomposition(jnp.asarray(offset)).epistemic, expected, rtol=1e-5)


def test_gradients_are_finite_where_members_are_sure_of_other_classes():
    logits = jnp.array([[[1e4, -1e4], [1.0, 2.0]], [[-1e4, 1e4], [1.0, -2.0]]])
    gradient = jax.jit(jax.grad(lambda z: sum(v.sum() for v in uncertainty.entropy_decomposition(z)[1:])))(logits)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[:, 1] != 0).all()


@settings(max_examples=40, deadline=None)
@given(ensembles())
def test_properties_of_every_ensemble_of_classifiers(logits):
    members, _, classes = logits.shape
    u = entropy_decomposition(jnp.asarray(logits))
    for values in u:
        assert np.isfinite(values).all()
        assert (np.asarray(values) >= 0).all()
    assert (np.asarray(u.epistemic) <= np.log(members) + 1e-5).all()
    assert (np.asarray(u.total) <= np.log(classes) + 1e-5).all()
    np.testing.assert_allclose(u.total, u.aleatoric + u.epistemic, rtol=1e-6)
    p = scipy.special.softmax(logits.astype("float64"), -1)
    np.testing.assert_allclose(u.total, entropy(p.mean(0)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(u.aleatoric, entropy(p).mean(0), rtol=1e-4, atol=1e-5)
    turned = entropy_decomposition(jnp.asarray(logits[::-1]))
    for before, after in zip(u, turned, strict=True):
        np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-6)
    prediction = log_mean_probabilities(jnp.asarray(logits))
    assert np.isfinite(prediction).all()
    np.testing.assert_allclose(jnp.exp(prediction).sum(-1), 1, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(ensembles())
def test_properties_of_every_ensemble_of_regressions(means):
    u = variance_decomposition(jnp.asarray(means), jnp.square(jnp.asarray(means)))
    assert all(np.isfinite(v).all() and (np.asarray(v) >= 0).all() for v in u)
    np.testing.assert_allclose(u.total, u.aleatoric + u.epistemic, rtol=1e-6)
    np.testing.assert_allclose(u.epistemic, means.astype("float64").var(0), rtol=1e-3, atol=1e-3)
    turned = variance_decomposition(jnp.asarray(means[::-1])).epistemic
    np.testing.assert_allclose(u.epistemic, turned, rtol=1e-3, atol=1e-3)


@functions
def test_jit_equals_eager_and_vmap_a_loop(function):
    three = jnp.stack([logits32, 2 * logits32, -logits32])
    jitted, mapped = jax.jit(function)(logits32), jax.vmap(function)(three)
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(function, three))
    for a, b in zip(jax.tree.leaves((jitted, mapped)), jax.tree.leaves((function(logits32), looped)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@functions
def test_halves_are_computed_in_float32(function):
    short = jnp.asarray(LOGITS, jnp.bfloat16)
    for a, b in zip(*(jax.tree.leaves(function(z)) for z in (short, short.astype("float32"))), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_array_equal(a, b)


@functions
@pytest.mark.parametrize(
    ("values", "error", "text"),
    [
        (
            logits32[0],
            ValueError,
            r"must be \(members, n, classes\), got \(40, 4\); .* ensemble of one, prediction\[None",
        ),
        (
            logits32[None],
            ValueError,
            r"must be \(members, n, classes\), got \(1, 5, 40, 4\); use jax.vmap over the leading axes",
        ),
        (logits32[:0], ValueError, r"must be \(members, n, classes\), got \(0, 40, 4\)"),
        (
            logits32.argmax(-1, keepdims=True),
            TypeError,
            "must be floating-point, got int32; pass logits or means, not labels",
        ),
    ],
    ids=["one network", "four axes", "no members", "labels"],
)
def test_predictions_of_the_wrong_shape_or_dtype_are_rejected(function, values, error, text):
    with pytest.raises(error, match=f"^{function.__name__}: .*{text}"):
        function(values)


def test_variance_decomposition_rejects_wrong_shapes():
    with pytest.raises(
        ValueError, match=r"variance_decomposition: predictions must be \(members, n, outputs\), got \(40, 2\)"
    ):
        uncertainty.variance_decomposition(means32[0])
    with pytest.raises(ValueError, match=r"variance_decomposition: predictions must be .* got \(40, 2\)"):
        uncertainty.variance_decomposition(means32, variances32[0])
    with pytest.raises(ValueError, match=r"must have the same shape as means, \(5, 40, 2\), got \(1, 40, 2\)"):
        uncertainty.variance_decomposition(means32, variances32[:1])


# Dropout -------------------------------------------------------------------------------------------------------------

X = jnp.asarray(rng.normal(size=(6, 3)), "float32")
KEY = jax.random.key(7)


def with_dropout(*, always, rate=0.5):
    return nn.serial(nn.dense(8), nn.batch_norm(), nn.dropout(rate, always=always), nn.dense(2))


def test_passes_differ_by_their_masks_and_batch_norm_predicts():
    net = nn.serial(nn.batch_norm(), nn.dropout(0.25, always=True))
    params, state = net.init(KEY, X)
    state = ({"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 9.0, 16.0])}, ())
    y = np.asarray(uncertainty.mc_dropout(net, params, state, X, KEY, 400))
    assert y.shape == (400, 6, 3)
    kept = np.asarray(X - jnp.array([[1.0, 2.0, 3.0]])) / np.sqrt([4.0, 9.0, 16.0]) / 0.75
    assert (np.isclose(y, kept[None], rtol=1e-4) | (y == 0)).all()
    np.testing.assert_allclose((y != 0).mean(), 0.75, atol=0.02)
    assert len({tuple(one) for one in (y != 0).reshape(400, -1)}) > 350


def test_dropout_everywhere_in_a_network_draws():
    """It draws inside residual, remat, repeat and with_precision."""
    drop = nn.dropout(0.5, always=True)
    for layer in (nn.residual(nn.remat(drop)), nn.repeat(2, nn.with_precision(drop))):
        net = nn.serial(layer)
        params, state = net.init(KEY, X)
        y = uncertainty.mc_dropout(net, params, state, X, KEY, 30)
        assert (np.asarray(uncertainty.variance_decomposition(y).epistemic) > 0).all()


def test_mc_dropout_predicts_the_average_of_all_thinned_networks():
    net = nn.serial(nn.dropout(0.5, always=True), nn.dense(2))
    params, state = net.init(KEY, X)
    y = uncertainty.mc_dropout(net, params, state, X, KEY, 20_000)
    masks = np.array(list(itertools.product([0, 1], repeat=3)))
    w, b = np.asarray(params[1]["w"]), np.asarray(params[1]["b"])
    exact = np.stack([(np.asarray(X) * 2 * mask) @ w + b for mask in masks])
    u = uncertainty.variance_decomposition(y)
    np.testing.assert_allclose(y.mean(0), exact.mean(0), atol=0.05)
    np.testing.assert_allclose(u.epistemic, exact.var(0), rtol=0.05, atol=1e-3)


def test_a_network_trained_with_plain_dropout_can_be_taken():
    plain, always = with_dropout(always=False), with_dropout(always=True)
    params, state = plain.init(KEY, X)
    assert jax.tree.structure((params, state)) == jax.tree.structure(always.init(KEY, X))
    apply = lambda net, **how: net.apply(params, state, X, **how)[0]  # noqa: E731
    np.testing.assert_array_equal(apply(plain, train=False), apply(always, train=False))
    np.testing.assert_array_equal(apply(plain, train=False, key=KEY), apply(plain, train=False))
    np.testing.assert_array_equal(apply(plain, train=True, key=KEY), apply(always, train=True, key=KEY))
    y = uncertainty.mc_dropout(always, params, state, X, KEY, 3)
    assert y.shape == (3, 6, 2)
    assert (np.asarray(uncertainty.variance_decomposition(y).epistemic) > 0).all()


def test_mc_dropout_under_jit_vmap_and_a_traced_rate():
    net = nn.serial(nn.dropout(0.5, always=True), jnp.tanh)
    passes = lambda x, key: uncertainty.mc_dropout(net, ((), ()), ((), ()), x, key, 4)  # noqa: E731
    jitted = jax.jit(passes)
    np.testing.assert_allclose(jitted(X, KEY), passes(X, KEY), rtol=1e-5, atol=1e-6)
    keys = jax.random.split(KEY, 3)
    mapped = jax.vmap(passes, in_axes=(None, 0))(X, keys)
    np.testing.assert_allclose(mapped, jnp.stack([jitted(X, key) for key in keys]), rtol=1e-5, atol=1e-6)
    drop = jax.jit(lambda rate: uncertainty.mc_dropout(nn.dropout(rate, always=True), (), (), X, KEY, 50))
    assert [float((drop(rate) == 0).mean().round(1)) for rate in (0.0, 0.5)] == [0, 0.5]


@pytest.mark.parametrize(
    "net",
    [nn.dense(3), with_dropout(always=False), with_dropout(always=True, rate=0.0), jnp.tanh],
    ids=["none", "plain", "rate 0", "function"],
)
def test_a_network_that_draws_nothing_is_an_error(net):
    params, state = nn.as_layer(net).init(KEY, X)
    with pytest.raises(ValueError, match=r"mc_dropout: \w+.* draws nothing .* nn.dropout\(rate, always=True\)"):
        uncertainty.mc_dropout(net, params, state, X, KEY, 3)


def test_mc_dropout_says_what_else_is_wrong():
    net = nn.serial(nn.dropout(0.5, always=True), nn.dense(2))
    params, state = net.init(KEY, X)
    with pytest.raises(ValueError, match="mc_dropout: n must be ≥ 1, got 0"):
        uncertainty.mc_dropout(net, params, state, X, KEY, 0)
    with pytest.raises(TypeError, match="mc_dropout: key must be a random key, got the integer 0"):
        uncertainty.mc_dropout(net, params, state, X, 0, 3)
    with pytest.raises(ValueError, match="expected 3 features, got 4"):  # the error comes from the network
        uncertainty.mc_dropout(net, params, state, jnp.ones((6, 4)), KEY, 3)


def test_the_name_of_a_layer_says_that_it_always_draws():
    assert nn.dropout(0.5, always=True).name == "dropout(0.5, always)"
    assert nn.dropout(0.5).name == "dropout(0.5)"


# Rejection -----------------------------------------------------------------------------------------------------------


def test_rejection_by_hand():
    right = jnp.array([True, False, True, False])
    dropped, accuracy = uncertainty.rejection_curve(right, jnp.array([0.3, 0.9, 0.1, 0.5]))
    np.testing.assert_array_equal(dropped, [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(accuracy, [0.5, 2 / 3, 1, 1], rtol=1e-6)


def test_rejection_weighs_inputs_and_shares():
    score, u, w = jnp.array([1.0, 0.0, 0.5]), jnp.array([0.1, 0.2, 0.3]), jnp.array([1.0, 3.0, 4.0])
    dropped, mean = uncertainty.rejection_curve(score, u, w)
    np.testing.assert_allclose(dropped, [0, 4 / 8, 7 / 8], rtol=1e-6)
    np.testing.assert_allclose(mean, [3 / 8, 1 / 4, 1], rtol=1e-6)


def test_what_is_kept_without_weight_has_no_score():
    dropped, mean = uncertainty.rejection_curve(jnp.ones(3), jnp.arange(3.0), jnp.array([0.0, 1.0, 1.0]))
    np.testing.assert_allclose(dropped, [0, 0.5, 1])
    np.testing.assert_array_equal(mean, [1, 1, np.nan])


def test_equally_uncertain_inputs_count_with_their_mean():
    right, u = np.array([1, 0, 0, 1, 1]), np.array([0.5, 0.5, 0.5, 0.1, 0.9])
    curve = uncertainty.rejection_curve(jnp.asarray(right), jnp.asarray(u, "float32"))[1]
    expected = []  # the mean over all orders of the tied inputs
    for k in range(5, 0, -1):
        orders = [[3, *tied, 4] for tied in itertools.permutations([0, 1, 2])]
        expected.append(np.mean([right[order[:k]].mean() for order in orders]))
    np.testing.assert_allclose(curve, expected, rtol=1e-6)
    np.testing.assert_allclose(uncertainty.rejection_curve(jnp.asarray(right), jnp.zeros(5))[1], 0.6, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 17]), st.integers(1, 5), st.integers(0, 2**31))
def test_rejection_does_not_depend_on_the_order_of_rows(n, values, seed):
    draws = np.random.default_rng(seed)
    right, u = draws.integers(0, 2, n), draws.integers(0, values, n).astype("float32")
    if n > 3:
        u[:3] = np.nan, np.nan, np.inf
    order = draws.permutation(n)
    before, after = (rejection_curve(jnp.asarray(right[o]), jnp.asarray(u[o])) for o in (np.arange(n), order))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(before[0], np.arange(n) / n, rtol=1e-6)
    np.testing.assert_allclose(before[1][0], right.mean(), rtol=1e-5, atol=1e-6)
    assert np.isfinite(before[1]).all()


def test_rejection_drops_nan_first_and_helps_where_uncertainty_knows():
    _, accuracy = uncertainty.rejection_curve(jnp.array([False, True, True]), jnp.array([jnp.nan, 1.0, 2.0]))
    np.testing.assert_allclose(accuracy, [2 / 3, 1, 1], rtol=1e-6)
    doubt = rng.uniform(size=1000)
    right = jnp.asarray(rng.uniform(size=1000) > doubt)
    area = [float(rejection_curve(right, jnp.asarray(u, "float32"))[1].mean()) for u in (doubt, -doubt)]
    assert area[0] > float(right.mean()) + 0.1 > area[1] + 0.2


def test_rejection_under_jit_and_vmap():
    right, u = jnp.asarray(rng.integers(0, 2, (3, 20))), jnp.asarray(rng.integers(0, 5, (3, 20)), "float32")
    looped = [uncertainty.rejection_curve(a, b) for a, b in zip(right, u, strict=True)]
    mapped = jax.jit(jax.vmap(uncertainty.rejection_curve))(right, u)
    for a, b in zip(mapped, zip(*looped, strict=True), strict=True):
        np.testing.assert_allclose(a, jnp.stack(b), rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        (jnp.ones(3), jnp.ones((3, 1))),
        (jnp.ones(3), jnp.ones(3), jnp.ones(2)),
        (jnp.ones((3, 2)),) * 2,
        (jnp.ones(0),) * 2,
    ],
    ids=["column", "weights", "outputs", "empty"],
)
def test_rejection_curve_rejects_wrong_shapes(arguments):
    with pytest.raises(ValueError, match=r"rejection_curve: .* one number per input, \(n,\), got \("):
        uncertainty.rejection_curve(*arguments)


# Sizes ---------------------------------------------------------------------------------------------------------------


def subset_scores(size, weights=None):
    """Return accuracy and NLL of every subset, in float64."""
    found = []
    for subset in itertools.combinations(range(MEMBERS), size):
        p = P[list(subset)].mean(0)
        hit, loss = p.argmax(-1) == LABELS, -np.log(p[np.arange(N), LABELS])
        found.append([np.average(hit, weights=weights), np.average(loss, weights=weights)])
    return np.transpose(found)


@pytest.mark.parametrize("weights", [None, rng.uniform(0, 2, N)], ids=["None", "real"])
def test_all_subsets_where_they_are_few(weights):
    w = None if weights is None else jnp.asarray(weights, "float32")
    curve = uncertainty.ensemble_size_curve(logits32, labels32, KEY, weights=w)
    np.testing.assert_array_equal(curve.size, [1, 2, 4, 5])
    for i, size in enumerate([1, 2, 4, 5]):
        accuracy, nll = subset_scores(size, weights)
        expected = [accuracy.mean(), accuracy.std(), nll.mean(), nll.std()]
        np.testing.assert_allclose([column[i] for column in curve[1:]], expected, rtol=1e-4, atol=1e-6)
    assert curve.accuracy_sd[-1] == curve.nll_sd[-1] == 0


def test_random_subsets_where_they_are_many():
    curve = uncertainty.ensemble_size_curve(logits32, labels32, KEY, sizes=[2, 3], repeats=6)
    for i, size in enumerate([2, 3]):
        accuracy, nll = subset_scores(size)
        assert accuracy.min() <= curve.accuracy[i] <= accuracy.max()
        assert 0 < curve.nll_sd[i] < np.ptp(nll)
        assert abs(curve.nll[i] - nll.mean()) < 3 * nll.std() / np.sqrt(6)
    again = uncertainty.ensemble_size_curve(logits32, labels32, KEY, sizes=[3], repeats=6)
    assert [column[0] for column in again] == [column[1] for column in curve]  # independent of the other sizes
    other = uncertainty.ensemble_size_curve(logits32, labels32, jax.random.key(8), sizes=[3], repeats=6)
    assert other.nll[0] != again.nll[0]


def test_single_members_are_all_taken_however_few_repeats():
    curve = uncertainty.ensemble_size_curve(logits32, labels32, KEY, sizes=[1], repeats=1)
    accuracy, nll = subset_scores(1)
    np.testing.assert_allclose([curve.accuracy[0], curve.nll[0]], [accuracy.mean(), nll.mean()], rtol=1e-5)


def test_random_subsets_are_without_replacement():
    """Each of 20 members is sure of a different class, so the mean probability counts the distinct members."""
    logits = 100 * jnp.eye(20)[:, None, :]
    curve = uncertainty.ensemble_size_curve(logits, jnp.full((1, 20), 1 / 20), KEY, sizes=[10], repeats=50)
    expected = -(10 * np.log(1 / 10) + 10 * -100) / 20
    np.testing.assert_allclose([curve.nll[0], curve.nll_sd[0]], [expected, 0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("members", "sizes"), [(1, [1]), (3, [1, 2, 3]), (8, [1, 2, 4, 8])])
def test_sizes_double_up_to_all_members(members, sizes):
    curve = uncertainty.ensemble_size_curve(jnp.zeros((members, 1, 2)), jnp.array([0]), KEY, repeats=1)
    np.testing.assert_array_equal(curve.size, sizes)
    np.testing.assert_allclose(curve.nll, np.log(2), rtol=1e-6)


def test_sizes_under_jit_and_vmap():
    curve = lambda logits, key: uncertainty.ensemble_size_curve(logits, labels32, key, sizes=[2], repeats=4)  # noqa: E731
    eager = curve(logits32, KEY)
    mapped = jax.jit(jax.vmap(curve, in_axes=(0, None)))(jnp.stack([logits32, -logits32]), KEY)
    for a, b in zip(eager, mapped, strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"sizes": [6]}, ValueError, r"sizes must be in 1 … 5, the number of members, got \[6\]"),
        ({"sizes": []}, ValueError, r"sizes must be in 1 … 5"),
        ({"sizes": [0]}, ValueError, "sizes must be ≥ 1, got 0"),
        ({"sizes": [1.5]}, TypeError, "sizes must be an integer, got 1.5"),
        ({"repeats": 0}, ValueError, "repeats must be ≥ 1, got 0"),
        ({"key": 3}, TypeError, "got the integer 3; use jax.random.key"),
        ({"logits": logits32[0]}, ValueError, r"must be \(members, n, classes\), got \(40, 4\)"),
        ({"y": labels32[:3]}, ValueError, r"integer labels must be \(40,\), got \(3,\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_size_curve_rejects_wrong_arguments(how, error, text):
    with pytest.raises(error, match=text):
        uncertainty.ensemble_size_curve(**{"logits": logits32, "y": labels32, "key": KEY, **how})
