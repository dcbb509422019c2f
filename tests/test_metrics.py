"""Metrics equal scikit-learn and explicit formulas; integer weights equal repeated rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from nnjax import losses, metrics, nn, optim, train

rng = np.random.default_rng(0)
N, CLASSES = 60, 4
LOGITS = rng.normal(scale=2.0, size=(N, CLASSES))
PROBABILITIES = scipy.special.softmax(LOGITS, -1)
LABELS = np.array([rng.choice(CLASSES, p=row) for row in PROBABILITIES])  # calibrated on average
REAL, TARGET = rng.normal(size=(N, 3)), rng.normal(size=(N, 3))
COUNTS = rng.integers(0, 4, N)


def _ece(logits, labels, weights, bins):
    """Sum over the bins, each with the examples whose confidence is in (low, high]."""
    p = scipy.special.softmax(logits, -1)
    confidence, correct, total = p.max(1), p.argmax(1) == labels, 0.0
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        w = weights * inside
        if w.sum():
            total += w.sum() / weights.sum() * abs((w * correct).sum() / w.sum() - (w * confidence).sum() / w.sum())
    return total


def _accuracy(z, t, w):
    return sklearn.metrics.accuracy_score(t, z.argmax(1), sample_weight=w)


def _nll(z, t, w):
    return sklearn.metrics.log_loss(t, scipy.special.softmax(z, -1), sample_weight=w, labels=range(CLASSES))


def _brier(z, t, w):
    return np.average(((scipy.special.softmax(z, -1) - np.eye(CLASSES)[t]) ** 2).sum(1), weights=w)


def _r2(z, t, w):
    return sklearn.metrics.r2_score(t, z, sample_weight=w)


def _rmse(z, t, w):
    return sklearn.metrics.mean_squared_error(t, z, sample_weight=w) ** 0.5


def _macro(score):
    return lambda z, t, w: score(t, z.argmax(1), average="macro", sample_weight=w, zero_division=0)


def _of_scores(score):
    return lambda z, t, w: score(t, z if z.ndim == 1 else z[:, 1] - z[:, 0], sample_weight=w)


NEVER_3 = LOGITS - [0, 0, 0, 99]
ece, ece5 = metrics.expected_calibration_error, functools.partial(metrics.expected_calibration_error, bins=5)
METRICS = {  # (metric, prediction, target, reference)
    "accuracy": (metrics.accuracy, LOGITS, LABELS, _accuracy),
    "nll": (metrics.nll, LOGITS, LABELS, _nll),
    "brier": (metrics.brier, LOGITS, LABELS, _brier),
    "ece": (ece, LOGITS, LABELS, functools.partial(_ece, bins=15)),
    "ece, 5 bins": (ece5, LOGITS, LABELS, functools.partial(_ece, bins=5)),
    "r2": (metrics.r2, REAL, TARGET, _r2),
    "r2, numbers": (metrics.r2, REAL[:, 0], TARGET[:, 0], _r2),
    "r2, good": (metrics.r2, REAL, REAL + 0.1 * TARGET, _r2),
    "rmse": (metrics.rmse, REAL, TARGET, _rmse),
    "rmse, numbers": (metrics.rmse, REAL[:, 0], TARGET[:, 0], _rmse),
    "mean_absolute_error": (
        metrics.mean_absolute_error,
        REAL,
        TARGET,
        lambda z, t, w: sklearn.metrics.mean_absolute_error(t, z, sample_weight=w),
    ),
    "top_k_accuracy": (
        functools.partial(metrics.top_k_accuracy, k=2),
        LOGITS,
        LABELS,
        lambda z, t, w: sklearn.metrics.top_k_accuracy_score(t, z, k=2, sample_weight=w),
    ),
    "precision": (metrics.precision, LOGITS, LABELS, _macro(sklearn.metrics.precision_score)),
    "recall": (metrics.recall, LOGITS, LABELS, _macro(sklearn.metrics.recall_score)),
    "f1": (metrics.f1, LOGITS, LABELS, _macro(sklearn.metrics.f1_score)),
    "f1, a class never predicted": (metrics.f1, NEVER_3, LABELS, _macro(sklearn.metrics.f1_score)),
    "precision, a class never predicted": (metrics.precision, NEVER_3, LABELS, _macro(sklearn.metrics.precision_score)),
    "recall, a class that never occurs": (metrics.recall, LOGITS, LABELS % 3, _macro(sklearn.metrics.recall_score)),
    "f1, a class that there is not": (metrics.f1, NEVER_3, LABELS % 3, _macro(sklearn.metrics.f1_score)),
    "roc_auc": (metrics.roc_auc, LOGITS[:, 0], LABELS % 2, _of_scores(sklearn.metrics.roc_auc_score)),
    "roc_auc, ties": (metrics.roc_auc, LOGITS[:, 0].round(), LABELS % 2, _of_scores(sklearn.metrics.roc_auc_score)),
    "roc_auc, logits": (metrics.roc_auc, LOGITS[:, :2], LABELS % 2, _of_scores(sklearn.metrics.roc_auc_score)),
    "average_precision": (
        metrics.average_precision,
        LOGITS[:, 0],
        LABELS % 2,
        _of_scores(sklearn.metrics.average_precision_score),
    ),
    "average_precision, ties": (
        metrics.average_precision,
        LOGITS[:, :2].round(),
        LABELS % 2,
        _of_scores(sklearn.metrics.average_precision_score),
    ),
}
over = pytest.mark.parametrize(("metric", "prediction", "target", "reference"), METRICS.values(), ids=METRICS.keys())


def arrays(prediction, target, dtype="float32"):
    real = np.issubdtype(target.dtype, np.floating)
    return jnp.asarray(prediction, dtype), jnp.asarray(target, dtype if real else "int32")


@over
@pytest.mark.parametrize("weights", [None, np.ones(N), rng.uniform(0, 2, N), COUNTS], ids=["None", "1", "real", "0-3"])
def test_equals_scikit_learn_or_its_formula(metric, prediction, target, reference, weights):
    with jax.enable_x64(True):
        value = metric(*arrays(prediction, target, "float64"), None if weights is None else jnp.asarray(weights))
    assert value.shape == ()
    expected = reference(prediction, target, np.ones(N) if weights is None else weights)
    np.testing.assert_allclose(value, expected, rtol=1e-9)


@over
def test_weights_count_as_repeated_rows(metric, prediction, target, reference):
    prediction, target = arrays(prediction, target)
    weighted = metric(prediction, target, jnp.asarray(COUNTS))
    rows = np.repeat(np.arange(N), COUNTS)
    assert len(rows) != N
    np.testing.assert_allclose(weighted, metric(prediction[rows], target[rows]), rtol=1e-5)


@over
def test_jit_and_vmap_equal_eager_and_the_result_is_float32_at_least(metric, prediction, target, reference):
    prediction, target = arrays(prediction, target)
    value = metric(prediction, target)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(metric)(prediction, target), value, rtol=1e-5)
    many = jax.vmap(metric, in_axes=(0, None))(jnp.stack([prediction, 0.5 * prediction]), target)
    np.testing.assert_allclose(many, [value, metric(0.5 * prediction, target)], rtol=1e-5)
    half = jax.eval_shape(metric, prediction.astype("bfloat16"), target, jax.ShapeDtypeStruct((N,), "float32"))
    assert half.dtype == jnp.float32  # 16 bits cannot count thousands of examples


@over
def test_weights_of_the_wrong_shape_are_an_error(metric, prediction, target, reference):
    prediction, target = arrays(prediction, target)
    with pytest.raises(ValueError, match=rf"weights must be one per example, \({N},\), got \({N - 1},\)"):
        metric(prediction, target, jnp.ones(N - 1))
    with pytest.raises(ValueError, match=rf"got \({N}, 1\)"):
        metric(prediction, target, jnp.ones((N, 1)))


OF_CLASSES = {name: row for name, row in METRICS.items() if row[1].ndim == 2 and row[2].ndim == 1
              and not name.startswith(("roc", "average"))}  # fmt: skip
LENGTHS = np.array([1, 5, 3, 0, 4, 2, 5, 1, 0, 3])  # of ten sequences of at most six positions, N in all
COUNTED = np.arange(6) < LENGTHS[:, None]


@pytest.mark.parametrize("form", ["ignore_index", "mask"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_the_positions_of_a_sequence_share_its_weight(name, weighted, form):
    """Without weights all sequences count the same; weighted by their numbers of positions, all positions do."""
    metric, prediction, target, reference = OF_CLASSES[name]
    weights = LENGTHS if weighted else np.ones(10)
    shares = (COUNTED * (weights / np.maximum(LENGTHS, 1))[:, None]).ravel()
    expected = reference(prediction[shares > 0], target[shares > 0], shares[shares > 0])
    with jax.enable_x64(True):
        logits = jnp.where(COUNTED[..., None], jnp.asarray(prediction).reshape(10, 6, CLASSES), jnp.nan)
        labels = jnp.where(COUNTED, jnp.asarray(target).reshape(10, 6), -1)
        labels = (labels, jnp.asarray(COUNTED)) if form == "mask" else labels
        options = {"ignore_index": -1} if form == "ignore_index" else {}
        value = metric(logits, labels, jnp.asarray(weights) if weighted else None, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_positions_that_all_count_need_neither_mask_nor_weights(name):
    metric, prediction, target, reference = OF_CLASSES[name]
    logits, labels = arrays(prediction.reshape(10, 6, CLASSES), target.reshape(10, 6))
    plain = metric(logits, labels)
    np.testing.assert_allclose(plain, reference(prediction, target, np.ones(N)), rtol=1e-4)
    for other in (
        metric(logits, labels, jnp.ones(10)),
        metric(logits, (labels, jnp.ones((10, 6)))),
        metric(logits, labels, ignore_index=-1),
    ):
        np.testing.assert_allclose(other, plain, rtol=1e-5)
    chosen = jnp.asarray([1, 1, 0] + 7 * [0])  # as a fold chooses rows
    np.testing.assert_allclose(metric(logits, labels, chosen), metric(logits[:2], labels[:2]), rtol=1e-5)
    with pytest.raises(ValueError, match=r"weights must be one per example, \(10,\), got \(10, 6\)"):
        metric(logits, labels, jnp.ones((10, 6)))


def test_nll_is_the_loss_of_a_run_on_sequences():
    logits, labels = arrays(LOGITS.reshape(10, 6, CLASSES), np.where(COUNTED, LABELS.reshape(10, 6), -1))
    loss = losses.cross_entropy(logits, labels, ignore_index=-1)
    weights = jnp.asarray(LENGTHS * rng.uniform(0, 1, 10), jnp.float32)
    expected = metrics.weighted_mean(loss, weights)
    np.testing.assert_allclose(metrics.nll(logits, labels, weights, ignore_index=-1), expected, rtol=1e-6)


def test_folds_of_weighted_sequences_are_trained_and_scored_on_their_own_positions():
    """An ensemble's fold equals a run on its rows; labels of ignored positions may be any number that is ignored."""
    tokens = np.asarray(rng.integers(0, CLASSES, (10, 6)), np.int32)
    labels = np.where(COUNTED, np.roll(tokens, 1, 1), -100)
    examples = (jax.nn.one_hot(tokens, CLASSES), labels, COUNTED.sum(1).astype(np.float32))
    run = train.Run(
        nn.dense(CLASSES),
        functools.partial(losses.cross_entropy, ignore_index=-100),
        optim.adam(1e-2),
        batch_size=4,
        metrics=[
            functools.partial(metric, ignore_index=-100) for metric in (metrics.accuracy, metrics.brier, metrics.nll)
        ],
    )
    folds = train.k_fold(jax.random.key(0), 10, 2)
    record = train.fit(run, examples, epochs=2, folds=folds, progress=False).history[-1]
    assert all(value.shape == (2,) and np.isfinite(value).all() for value in record.values() if np.ndim(value))
    np.testing.assert_allclose(record["validation_loss"], record["validation_nll"], rtol=1e-6)


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.nll, metrics.brier, ece], ids=lambda m: m.__name__)
def test_one_hot_rows_agree_with_labels_and_log_probabilities_with_logits(metric):
    prediction, target = arrays(LOGITS, LABELS)
    value = metric(prediction, target)
    np.testing.assert_allclose(metric(prediction, jax.nn.one_hot(target, CLASSES)), value, rtol=1e-5)
    np.testing.assert_allclose(metric(jnp.log(jnp.asarray(PROBABILITIES, "float32")), target), value, rtol=1e-4)
    with pytest.raises((TypeError, ValueError), match="labels must be"):
        metric(prediction, target[:, None])
    with pytest.raises(TypeError, match="labels must be integers, got float32"):
        metric(prediction, target.astype("float32"))


@pytest.mark.parametrize("weights", [None, COUNTS])
def test_confusion_matrix_is_that_of_scikit_learn(weights):
    matrix = metrics.confusion_matrix(*arrays(LOGITS, LABELS), None if weights is None else jnp.asarray(weights))
    expected = sklearn.metrics.confusion_matrix(LABELS, LOGITS.argmax(1), sample_weight=weights)
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("metric", [metrics.roc_auc, metrics.average_precision])
def test_scores_of_one_class_or_of_other_labels_are_undefined(metric):
    scores = jnp.array([0.1, 0.4, 0.3])
    assert np.isnan(metric(scores, jnp.array([0, 0, 0])))
    assert np.isnan(metric(scores, jnp.array([0, 1, 2])))
    assert np.isnan(metric(scores.at[0].set(jnp.nan), jnp.array([0, 1, 0])))
    assert not np.isnan(metric(scores.at[0].set(jnp.nan), jnp.array([2, 1, 0]), jnp.array([0.0, 1.0, 1.0])))
    with pytest.raises(ValueError, match=r"scores \(examples,\) or logits \(examples, 2\)"):
        metric(jnp.ones((3, 4)), jnp.array([0, 1, 0]))
    with pytest.raises(TypeError, match="labels must be integers 0 and 1, got float32"):
        metric(scores, scores)


@pytest.mark.parametrize(
    "metric", [metrics.confusion_matrix, metrics.precision, metrics.recall, metrics.f1, metrics.top_k_accuracy]
)
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_not_a_class_makes_a_score_undefined_unless_its_weight_is_0(metric, label):
    metric = functools.partial(metric, k=2) if metric is metrics.top_k_accuracy else metric
    prediction, labels = jnp.eye(CLASSES)[:3], jnp.array([0, 1, label])
    assert np.isnan(metric(prediction, labels)).any()
    np.testing.assert_allclose(
        metric(prediction, labels, jnp.array([1.0, 1.0, 0.0])), metric(prediction[:2], labels[:2])
    )


def test_more_guesses_than_classes_are_an_error():
    with pytest.raises(ValueError, match="k must be at most the 4 classes, got 5"):
        metrics.top_k_accuracy(*arrays(LOGITS, LABELS))


def test_brier_of_soft_targets_is_the_squared_distance():
    soft = rng.dirichlet(np.ones(CLASSES), N)
    expected = ((PROBABILITIES - soft) ** 2).sum(1).mean()
    np.testing.assert_allclose(metrics.brier(*arrays(LOGITS, soft)), expected, rtol=1e-5)


def test_brier_of_two_classes_is_twice_that_of_scikit_learn():
    z, t = LOGITS[:, :2], LABELS % 2
    expected = 2 * sklearn.metrics.brier_score_loss(t, scipy.special.softmax(z, -1)[:, 1])
    np.testing.assert_allclose(metrics.brier(*arrays(z, t)), expected, rtol=1e-5)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_nll_of_a_label_out_of_range_is_nan(label):
    assert np.isnan(metrics.nll(jnp.zeros((2, CLASSES)), jnp.array([0, label])))


def test_reliability_diagram_adds_up():
    share, confidence, correct = metrics.reliability(*arrays(LOGITS, LABELS), bins=10)
    assert share.shape == confidence.shape == correct.shape == (10,)
    np.testing.assert_allclose(share.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose((share * confidence).sum(), PROBABILITIES.max(1).mean(), rtol=1e-5)
    np.testing.assert_allclose((share * correct).sum(), (LOGITS.argmax(1) == LABELS).mean(), rtol=1e-5)
    middle = np.asarray(confidence) * 10
    assert all((share == 0) | ((middle > np.arange(10)) & (middle <= np.arange(10) + 1 + 1e-5)))


def test_full_confidence_is_in_the_last_bin():
    share, _, correct = metrics.reliability(jnp.array([[1e4, 0.0]]), jnp.array([0]), bins=4)
    np.testing.assert_array_equal(share, [0, 0, 0, 1])
    np.testing.assert_array_equal(correct, [0, 0, 0, 1])


@pytest.mark.parametrize("bins", [0, -1])
def test_bins_out_of_range_are_an_error(bins):
    with pytest.raises(ValueError, match=f"bins must be ≥ 1, got {bins}"):
        metrics.expected_calibration_error(*arrays(LOGITS, LABELS), bins=bins)


def test_weighted_mean_of_no_weight_is_undefined():
    assert np.isnan(metrics.weighted_mean(jnp.array([1.0, 2.0]), jnp.zeros(2)))
    np.testing.assert_allclose(metrics.weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0])), 2.0)


@pytest.mark.parametrize("metric", [metrics.r2, metrics.rmse], ids=lambda m: m.__name__)
def test_column_against_numbers_is_an_error(metric):
    with pytest.raises(ValueError, match=r"got \(4, 1\) and \(4,\)"):
        metric(jnp.ones((4, 1)), jnp.ones(4))


@pytest.mark.parametrize(
    ("prediction", "target", "weights"), [([1.0, 2.0, 3.0], [1.0, 1.0, 5.0], [1.0, 1.0, 0.0]), ([2.0], [1.0], None)]
)
def test_r2_of_a_constant_target_is_0_or_1(prediction, target, weights):
    prediction, target = jnp.array(prediction), jnp.array(target)
    weights = None if weights is None else jnp.array(weights)
    assert metrics.r2(prediction, target, weights) == 0
    assert metrics.r2(target, target, weights) == 1


ONE = LOGITS[:, :1].astype(np.float32)
BITS = (LABELS % 2)[:, None]


@pytest.mark.parametrize(
    "name",
    ["accuracy", "nll", "brier", "expected_calibration_error", "precision", "recall", "f1", "confusion_matrix"],
)
@pytest.mark.parametrize("target", [BITS, BITS[:, 0], BITS == 1, BITS.astype(np.float32)], ids=str)
@pytest.mark.parametrize("prediction", [ONE, ONE[:, 0]], ids=["column", "row"])
def test_one_output_is_the_logit_of_class_1(name, prediction, target):
    metric, two = getattr(metrics, name), np.concatenate([0 * ONE, ONE], 1)
    np.testing.assert_array_equal(metric(prediction, target, COUNTS), metric(two, BITS[:, 0], COUNTS))


def test_a_column_of_scores_ranks_the_classes():
    for metric in (metrics.roc_auc, metrics.average_precision):
        assert metric(ONE, BITS) == metric(ONE, BITS[:, 0]) == metric(ONE[:, 0], BITS[:, 0])


def test_nll_of_one_output_is_the_binary_cross_entropy_and_its_labels_are_0_and_1():
    soft = np.linspace(0, 1, N, dtype=np.float32)[:, None]
    np.testing.assert_allclose(metrics.nll(ONE, soft), losses.binary_cross_entropy(ONE, soft).mean(), rtol=1e-6)
    assert np.isnan(metrics.accuracy(ONE, 2 * BITS))
    assert np.isnan(metrics.accuracy(ONE, 2.0 * BITS))
    with pytest.raises(TypeError, match="accuracy: prediction must be logits, got int"):
        metrics.accuracy(LOGITS.argmax(-1), LABELS)


def test_a_network_with_one_output_is_validated_by_accuracy():
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    run = train.Run(nn.dense(1), losses.binary_cross_entropy, optim.adam(0.1), batch_size=8, metrics=[metrics.accuracy])
    for y in (x > 0, (x > 0).astype(int), (x > 0).astype(np.float32)):
        result = train.fit(run, (x, y), validation=(x, y), epochs=10, progress=False)
        assert result.history[-1]["validation_accuracy"] > 0.9


def test_a_diverged_network_has_accuracy_zero():
    assert metrics.accuracy(jnp.full((2, 3), jnp.nan), jnp.zeros(2, "int32")) == 0


def test_thousands_of_rows_in_bfloat16_are_all_counted():
    logits = jnp.zeros((2000, 2), jnp.bfloat16)
    share, _, _ = metrics.reliability(logits, jnp.zeros(2000, "int32"))
    np.testing.assert_allclose(share.sum(), 1, rtol=1e-4)
