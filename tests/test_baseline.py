"""Results that do not deceive: baselines, recall of each class, class weights, row numbers, values far outside."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import cli, data
from nnjax.cli.baseline import Baseline, baseline, class_scores
from nnjax.cli.report import print_classes
from nnjax.data import Data
from nnjax.data.table import Column, Table, Target

N = 60
RNG = np.random.default_rng(0)


def table(task="classification", classes=("no", "yes"), **settings):
    return Table(task, "t", list(classes), [Column("a")], mean=[0.0], std=[1.0], **settings)


def test_the_baseline_of_classes_is_the_most_frequent_one_in_training():
    constant = baseline(table(), Data((), jnp.array([1, 1, 0])), Data((), jnp.array([0, 0, 0, 1])))
    assert constant.prediction == "always 'yes'"
    assert constant.scores == {"accuracy": 0.25}


def test_the_baseline_of_numbers_is_their_mean():
    units = table("regression", (), target_mean=5.0, target_std=10.0)
    constant = baseline(units, Data((), jnp.array([[-1.0], [1.0]])), Data((), jnp.array([[1.0], [3.0]])))
    np.testing.assert_allclose(constant.scores["rmse"], 10 * np.sqrt(5))
    np.testing.assert_allclose(constant.scores["r2"], 1 - 5 / 1)
    assert np.isnan(baseline(units, Data((), jnp.ones((2, 1))), Data((), jnp.ones((1, 1)))).scores["r2"])


def test_the_baseline_of_several_targets_has_r2_of_each():
    several = table("regression", (), several=[Target("u", 0.0, 1.0), Target("v", 0.0, 1.0)])
    y = jnp.array([[1.0, 0.0], [3.0, 2.0]])
    scores = baseline(several, Data((), jnp.zeros((4, 2))), Data((), y)).scores
    assert scores["r2(u)"] == pytest.approx(1 - 5)
    assert scores["r2(v)"] == pytest.approx(1 - 2)
    assert scores["r2"] == pytest.approx((scores["r2(u)"] + scores["r2(v)"]) / 2)


def test_scores_of_each_class():
    y = jnp.array([0, 0, 0, 1, 1, 2])
    predicted = np.eye(4)[[0, 0, 1, 1, 0, 0]]
    scores = class_scores(table(classes="abcd"), predicted, Data((), y))
    assert scores.recall == {"a": pytest.approx(2 / 3), "b": 0.5, "c": 0.0}
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 0.5) / 3)
    assert scores.rows == {"a": 3, "b": 2, "c": 1}
    assert scores.never == ["c"]
    assert scores.auc is None
    two = class_scores(table(), np.array([[0, 1.0], [0, 0.0], [0, 3.0]]), Data((), jnp.array([0, 0, 1])))
    assert two.auc == 1


def test_a_class_with_one_or_two_test_rows_is_no_warning(capsys):
    names = [*"abcdefghijkl"]
    y = np.repeat(np.arange(12), [9, 8, 7, 6, 5, 4, 3, 3, 3, 3, 2, 1])
    logits = np.eye(12)[np.where(y < 9, y, 0)]  # j, k and l are never predicted
    scores = class_scores(table(classes=names), logits, Data((), jnp.array(y)))
    print_classes(scores, Baseline("always 'a'", {"accuracy": 9 / 54}))
    text = " ".join("".join(capsys.readouterr()).split())
    assert "lowest recall of 12 classes (test rows): j 0.0000 (3), a 1.0000 (9), b 1.0000 (8)," in text
    assert "never predicted: 'j' (3 rows); try" in text
    assert "fewer than 3 test rows, too few to judge the recall: 'k', 'l'" in text


def write(path, columns):
    names = ",".join(columns)
    rows = "\n".join(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))
    path.write_text(f"{names}\n{rows}\n")
    return path


def columns(**changed):
    x = RNG.normal(size=N).round(3)
    return {"a": x, "b": RNG.normal(size=N).round(3), "t": np.where(x > 0, "yes", "no")} | changed


ROW_NUMBER = "'id' looks like a row number: its numbers are different"
NUMBERS = {  # values of a column, and the start of the warning
    "0, 1, …": (np.arange(N), ROW_NUMBER),
    "descending": (1000 - 2.5 * np.arange(N), "'id' looks like a row number or a time"),
    "shuffled": (RNG.permutation(N) + 7, ROW_NUMBER),
    "with gaps": (RNG.permutation(N) * 1000, "'id' holds integers that are different in all or most rows"),
    "twice": (np.arange(N) // 2 * 3 + np.arange(N) % 2 * (np.arange(N) > 9), "'id' holds integers that are"),
    "pairs": (np.arange(N) // 2, None),
    "numbers": (RNG.normal(size=N).round(3), None),
}


@pytest.mark.parametrize(("values", "warning"), NUMBERS.values(), ids=NUMBERS)
def test_row_numbers_and_identifiers_are_named(tmp_path, values, warning):
    path = write(tmp_path / "t.csv", columns(id=values))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.load(str(path), target="t")
    assert len(caught) == (warning is not None)
    assert all(warning in str(w.message) for w in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.load(str(path), target="t", drop=["id"]).train.x.shape[1] == 2


def test_an_unnamed_index_is_left_out(tmp_path):
    path = write(tmp_path / "t.csv", {"": np.arange(N)} | columns())
    with pytest.warns(UserWarning, match=r"t\.csv: the first column .* numbers the rows, so it is left out"):
        assert [column.name for column in data.load(str(path), target="t").table.columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "what"), [([f"car {i}" for i in range(N)], "string"), ((RNG.permutation(N) * 10).tolist(), "number")]
)
def test_an_unnamed_column_that_is_different_in_all_rows_is_left_out(tmp_path, names, what):
    path = write(tmp_path / "t.csv", {"": names} | columns())
    with pytest.warns(UserWarning, match=f"no name and holds a different {what} in each row, so it is left out"):
        assert [column.name for column in data.load(str(path), target="t").table.columns] == ["a", "b"]


def test_long_tails_are_told_from_single_values(tmp_path):
    tail = RNG.normal(size=N).round(3)
    tail[:12] = 1000 + np.arange(12)
    path = write(tmp_path / "t.csv", columns(a=tail))
    with pytest.warns(UserWarning, match=r"long tails, .* 'a' \(12 values, the farthest 1011 in line 13\)"):
        data.load(str(path), target="t")


def test_values_far_outside_are_listed(tmp_path):
    target = RNG.normal(size=N).round(3)
    target[17] = 1e9
    path = write(tmp_path / "t.csv", columns(t=target))
    with pytest.warns(UserWarning, match=r"1 value is more than 10 interquartile .* 1e\+09 in line 19 of 't'"):
        data.load(str(path), target="t")


def test_mistakes_in_drop_are_named(tmp_path):
    path = str(write(tmp_path / "t.csv", columns()))
    for drop, kind, message in (
        (["x"], ValueError, "column to drop"),
        (["t"], ValueError, "the target 't' cannot be dropped"),
        ("a", TypeError, r"drop must be a list, got 'a'; write \['a'\]"),
    ):
        with pytest.raises(kind, match=message):
            data.load(path, target="t", drop=drop)
    with pytest.raises(ValueError, match="apply only to tables"):
        data.load("digits", drop=["a"])


def nnjax(*arguments):
    with jax.numpy_dtype_promotion("standard"):  # JAX's default, which users have
        cli.app(list(arguments), standalone_mode=False)


def test_the_report_of_a_rare_class(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rare = np.where(np.arange(100) % 10 == 3, "yes", "no")
    write(tmp_path / "rare.csv", {"a": RNG.normal(size=100).round(3), "id": np.arange(100), "y": rare})
    command = ["train", "rare.csv", "--target", "y", "--epochs", "1", "--width", "4", "--no-plots", "--drop", "id"]
    nnjax(*command, "--out", "plain")
    output = capsys.readouterr()
    text = " ".join((output.out + output.err).split())
    assert "always 'no': accuracy 0.9000; balanced accuracy" in text
    assert "recall (test rows): yes" in text
    result = json.loads((tmp_path / "plain" / "result.json").read_text())
    assert result["baseline"] == {"accuracy": 0.9}
    assert result["recall"].keys() == {"no", "yes"}
    nnjax(*command, "--class-weights", "balanced", "--out", "weighted")
    nnjax("predict", "weighted", "rare.csv")
    losses = [(tmp_path / name / "metrics.csv").read_text() for name in ("plain", "weighted")]
    assert losses[0] != losses[1]


def test_a_single_validation_row_has_no_r2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "ten.csv", {name: RNG.normal(size=10).round(3) for name in "aby"})
    settings = ["ten.csv", "--target", "y", "--epochs", "1", "--width", "4"]
    nnjax("train", *settings, "--no-plots", "--out", "run")
    text = "".join(capsys.readouterr())
    assert "validation R² is undefined" in " ".join(text.split())
    assert "test R²" in text
    assert "validation r2" not in text
    assert "validation_r2" not in (tmp_path / "run" / "metrics.csv").read_text()
    nnjax("sweep", *settings, "--learning-rate", "0.01,0.1", "--out", "sweep")
    assert "validation_r2" not in (tmp_path / "sweep" / "sweep.csv").read_text()


def test_weights_of_classes_are_inverse_to_their_frequencies():
    from nnjax.cli.prepare import _class_weights

    weights = _class_weights(np.array([0, 0, 0, 1]), table(), "balanced")
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2])
    assert _class_weights(np.array([0, 1]), table(), "none") is None
    with pytest.raises(ValueError, match="applies only to classification"):
        _class_weights(np.array([0.5]), table("regression", ()), "balanced")
