"""scikit-learn estimators: scikit-learn's own checks, and the tools that its users put around an estimator."""

import pickle
import subprocess
import sys
from functools import partial

import jax
import joblib
import numpy as np
import optax
import pandas
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_regression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from nnjax import losses, nn, optim
from nnjax.interop._estimator_programs import predict_members
from nnjax.interop.sklearn import Classifier, Regressor

IRIS = load_iris()
X, Y = StandardScaler().fit_transform(IRIS.data), IRIS.target
LINE = np.linspace(-1, 1, 80)[:, None]
quick_classifier = partial(Classifier, hidden=(16,), learning_rate=1e-2, epochs=30, batch_size=50, random_state=0)
quick_regressor = partial(Regressor, hidden=(16,), learning_rate=1e-2, epochs=100, batch_size=50, random_state=0)


# In float32, training on weights and on repeated rows differs by 3e-7, and the check allows 1e-7.
NEEDS_FLOAT64 = ("check_sample_weight_equivalence_on_dense_data",)


@parametrize_with_checks([Classifier(), Regressor()])
def test_scikit_learn_checks(estimator, check):
    with jax.enable_x64(check.func.__name__ in NEEDS_FLOAT64):
        check(estimator)


# Tools ---------------------------------------------------------------------------------------------------------------


def test_pipeline_grid_search_and_cross_validation():
    pipeline = make_pipeline(StandardScaler(), quick_classifier())
    search = GridSearchCV(pipeline, {"classifier__hidden": [(1,), (16,)]}, cv=3)
    search.fit(IRIS.data, Y)
    assert search.best_score_ > 0.9
    assert cross_val_score(search.best_estimator_, IRIS.data, Y, cv=3, scoring="neg_log_loss").mean() > -0.3


JOBLIB = """
import joblib, numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from nnjax import nn
from nnjax.interop.sklearn import Classifier

x, y = load_iris(return_X_y=True)
model = Classifier(net=nn.mlp([8], 3, norm="batch"), epochs=1, random_state=0)  # closures, which loky can pickle
scores = []
for backend in ["loky", "threading"]:
    with joblib.parallel_backend(backend, n_jobs=2):
        scores.append(cross_val_score(model, x, y, cv=2).tolist())
assert scores[0] == scores[1], scores
print("equal")
"""


def test_joblib_backends_give_the_same_scores():
    # In a process without the tests' type checker, whose wrappers cannot be pickled
    result = subprocess.run([sys.executable, "-c", JOBLIB], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "equal", result.stderr


def test_table_with_columns_of_text():
    frame = pandas.DataFrame({"size": X[:, 0], "kind": pandas.Categorical(np.array(["a", "b", "c"])[Y])})
    columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])], remainder="passthrough")
    assert make_pipeline(columns, quick_classifier()).fit(frame, Y).score(frame, Y) > 0.95


@pytest.mark.parametrize(
    "model",
    [
        quick_classifier(),
        quick_classifier(net=partial(nn.mlp, (8,), norm="layer"), loss=partial(losses.focal, gamma=1.0)),
        quick_classifier(optimizer=partial(optim.adamw, weight_decay=1e-3), patience=3, members=2),
        quick_regressor(loss=losses.gaussian_nll, optimizer=optax.sgd),
    ],
)
def test_fitted_models_are_pickled(model, tmp_path):
    model.fit(X, Y)
    copies = [pickle.loads(pickle.dumps(model)), joblib.load(joblib.dump(model, tmp_path / "model")[0])]
    for copy in copies:
        np.testing.assert_array_equal(copy.predict(X), model.predict(X))
        copy.partial_fit(X, Y)


def test_clones_share_their_programs():
    model = quick_classifier(net=partial(nn.mlp, (7,), dropout=0.1), optimizer=partial(optim.adam, b1=0.8))
    run = model.fit(X, Y)._run(50)
    programs = predict_members._cache_size()
    copy = clone(model).fit(X, Y)
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    assert hash(copy._run(50)) == hash(run)
    assert copy._run(50) == run
    assert predict_members._cache_size() == programs + 1


def test_rows_are_predicted_the_same_in_any_table():
    model = quick_classifier().fit(X, Y)
    whole, programs = model.predict_proba(X), predict_members._cache_size()
    for n in range(1, 100, 7):
        np.testing.assert_allclose(model.predict_proba(X[:n]), whole[:n], rtol=1e-6)
    assert predict_members._cache_size() <= programs + 4  # 16, 32, 64, 128
    many = np.tile(X, (60, 1))  # several blocks
    np.testing.assert_allclose(model.predict_proba(many), np.tile(whole, (60, 1)), rtol=1e-6)


# Classification ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [["a", "b", "c"], [-7, 3, 10**9], [0.0, 1.0, 2.0], pandas.Categorical(["u", "v", "w"])],
    ids=lambda names: type(names[0]).__name__,
)
def test_labels_of_any_kind(names):
    y = np.asarray(names)[Y]
    y = pandas.Series(y, dtype="category") if isinstance(names, pandas.Categorical) else y
    model = quick_classifier().fit(X, y)
    assert model.score(X, y) > 0.95
    assert model.classes_.tolist() == list(names)
    assert model.predict(X).dtype == model.classes_.dtype


def test_booleans_as_labels():
    model = quick_classifier().fit(X, Y == 2)
    assert model.classes_.tolist() == [False, True]
    assert model.score(X, Y == 2) > 0.95


def test_members_average_their_probabilities():
    ensemble = quick_classifier(members=3).fit(X, Y)
    logits = ensemble._outputs(X)
    assert logits.shape == (3, 150, 3)
    mean = np.asarray(jax.nn.softmax(logits)).mean(0)
    np.testing.assert_allclose(ensemble.predict_proba(X), mean, rtol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 0.1


def test_weights_move_the_boundary():
    model, plain = quick_classifier(), quick_classifier().fit(X, Y)
    weighted = model.fit(X, Y, sample_weight=np.where(Y == 1, 50.0, 1.0))
    assert (weighted.predict(X) == 1).sum() > (plain.predict(X) == 1).sum()


def test_rows_of_weight_zero_do_not_exist():
    model, kept = quick_classifier(epochs=3), Y < 2
    weighted = model.fit(X, Y, sample_weight=kept.astype(float)).predict_proba(X)
    assert model.classes_.tolist() == [0, 1]
    alone = model.fit(X[kept], Y[kept], sample_weight=np.ones(kept.sum())).predict_proba(X)
    np.testing.assert_array_equal(weighted, alone)


def test_early_stopping_uses_the_best_epoch():
    model = quick_classifier(patience=2, epochs=300, learning_rate=0.1, validation_fraction=0.3).fit(X, Y)
    scores = [record["validation_loss"][0] for record in model.history_]
    assert len(scores) < 300
    assert len(scores) == np.argmin(scores) + 3
    rounds = np.argmin(scores) + 1
    assert model.ts_.step[0] > 0
    again = quick_classifier(patience=rounds, epochs=int(rounds), learning_rate=0.1, validation_fraction=0.3)
    np.testing.assert_array_equal(again.fit(X, Y).predict_proba(X), model.predict_proba(X))


def test_partial_fit_takes_one_epoch_and_continues():
    model = quick_classifier()
    for part in range(20):
        rows = slice(part % 2, None, 2)
        model.partial_fit(X[rows], Y[rows], classes=[0, 1, 2] if part == 0 else None)
    assert model.ts_.step.tolist() == [40]  # 75 rows are two batches of at most 50
    assert model.score(X, Y) > 0.8
    model.fit(X, Y).partial_fit(X[:10], Y[:10])
    assert model.ts_.step.tolist() == [91]


def test_partial_fit_with_one_class_at_a_time():
    model = quick_classifier(members=2)
    for label in (0, 1, 2) * 30:
        model.partial_fit(X[label == Y], Y[label == Y], classes=[0, 1, 2])
    assert model.predict_proba(X).shape == (150, 3)
    with pytest.raises(ValueError, match=r"Classifier: the label 3 is not among the classes \[0 1 2\]"):
        model.partial_fit(X, Y + 3)
    with pytest.raises(
        ValueError, match=r"Classifier: classes=\[0, 1\] differ from the classes of the first call, \[0 1 2\]"
    ):
        model.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        quick_classifier().partial_fit(X, Y)


# Regression ----------------------------------------------------------------------------------------------------------


def test_targets_have_their_own_units():
    y = 1e6 + 1e3 * LINE[:, 0] ** 2
    model = quick_regressor().fit(LINE, y)
    assert model.score(LINE, y) > 0.95
    assert model.predict(LINE).dtype == np.float64


@pytest.mark.parametrize("outputs", [1, 3])
def test_several_outputs(outputs):
    x, y = make_regression(100, 4, n_informative=4, n_targets=outputs, random_state=0)
    y = y.reshape(100, outputs)
    model = quick_regressor(members=2).fit(x, y)
    mean, std = model.predict(x, return_std=True)
    assert mean.shape == std.shape == (100, outputs)
    assert model.score(x, y) > 0.9


def test_members_disagree_far_from_the_data():
    model = quick_regressor(members=5).fit(LINE, np.sin(3 * LINE[:, 0]))
    mean, std = model.predict(np.concatenate([LINE, [[6.0]]]), return_std=True)
    np.testing.assert_array_equal(mean[:-1], model.predict(LINE))
    assert std[-1] > 10 * std[:-1].mean()
    members = model._outputs(LINE)[..., 0] * model.y_std_ + model.y_mean_
    np.testing.assert_allclose(std[:-1], members.std(0), rtol=1e-4)


def test_intervals_contain_the_noise_that_the_network_learns():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (600, 1))
    noise = np.where(x[:, 0] > 0, 2.0, 0.2)
    y = 30 + 10 * x[:, 0] + noise * rng.normal(size=600)
    model = quick_regressor(loss=losses.gaussian_nll, members=2, epochs=150).fit(x[:400], y[:400])
    mean, std = model.predict(x[400:], return_std=True)
    inside = np.abs(y[400:] - mean) < 1.96 * std
    assert 0.88 < inside.mean() <= 0.99
    quiet, loud = std[x[400:, 0] < -0.2].mean(), std[x[400:, 0] > 0.2].mean()
    assert 0.1 < quiet < 0.6
    assert 1.4 < loud < 2.8


def test_deviation_of_a_single_network_is_refused():
    model = quick_regressor(epochs=1).fit(LINE, LINE[:, 0])
    with pytest.raises(ValueError, match="Regressor: return_std needs members ≥ 2, or loss="):
        model.predict(LINE, return_std=True)


def test_partial_fit_keeps_the_scale_of_the_first_rows():
    y = 100 + 10 * LINE[:, 0]
    model = quick_regressor()
    for _ in range(100):
        model.partial_fit(LINE[::2], y[::2])
    scale = model.y_mean_, model.y_std_
    model.partial_fit(LINE[:5], y[:5])
    assert (model.y_mean_, model.y_std_) == scale
    assert model.score(LINE, y) > 0.95


# Arguments -----------------------------------------------------------------------------------------------------------


def test_arguments_of_a_network_and_an_optimizer():
    layer = nn.serial(nn.dense(8), nn.batch_norm(), jax.nn.relu, nn.dense(3))
    nets = (layer, lambda outputs: nn.mlp([8], outputs), partial(nn.mlp, [8]))
    for net, optimizer in zip(nets, (optim.nesterov, optax.rmsprop(0.05), partial(optim.sgd)), strict=True):
        with jax.numpy_dtype_promotion("standard"):  # for optax
            assert quick_classifier(net=net, optimizer=optimizer, learning_rate=0.05).fit(X, Y).score(X, Y) > 0.8


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"net": nn.mlp([8], 4)}, ValueError, r"the network must return \(n, 3\) for these targets, got \(\d+, 4\)"),
        ({"hidden": 8}, TypeError, r"Classifier: hidden must be a sequence such as \(100,\), got 8"),
        ({"hidden": (8, 0)}, ValueError, "dense: features must be"),
        ({"batch_size": 0}, ValueError, "Classifier: batch_size must be"),
        ({"members": 0}, ValueError, "Classifier: members must be"),
        ({"epochs": -1}, ValueError, "epochs must be"),
        ({"patience": 1, "validation_fraction": 1.0}, ValueError, "share must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        quick_classifier(**arguments).fit(X, Y)


def test_batch_of_all_rows():
    model = quick_classifier(batch_size=None, epochs=100).fit(X, Y)
    assert model.ts_.step.tolist() == [100]
    assert model.partial_fit(X, Y).ts_.step.tolist() == [101]
    assert model.score(X, Y) > 0.9


def test_subclass_keeps_the_loss():
    class MyRegressor(Regressor):
        pass

    model = MyRegressor((16,), epochs=100, learning_rate=1e-2, random_state=0)
    assert model.fit(LINE, LINE[:, 0]).score(LINE, LINE[:, 0]) > 0.9


@pytest.mark.filterwarnings("ignore::nnjax.train.DivergedWarning")
@pytest.mark.parametrize("make", [quick_classifier, quick_regressor])
def test_training_that_diverges_is_refused(make):
    model = make(optimizer=optim.sgd, learning_rate=1e30)
    with pytest.raises(ValueError, match="the training diverged, its parameters are not finite"):
        model.fit(X, Y)
    with pytest.raises(ValueError, match="the training diverged"):
        model.partial_fit(X, Y)
