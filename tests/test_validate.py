"""Errors in the data are found on the host, before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax import Array

from nnjax import data, losses, nn, optim, train

F = np.float32


def xy(rows=6, **change):
    """Return valid data with some changes."""
    good = {"x": np.ones((rows, 3), F), "y": np.arange(rows) % 2}
    return tuple((good | change).values())


def ones_with(value, place, shape=(6, 3), dtype=F):
    x = np.ones(shape, dtype)
    x[place] = value
    return x


def run(batch_size=2, outputs=2):
    return train.Run(nn.mlp([], outputs), losses.cross_entropy, optim.sgd(0.1), batch_size=batch_size)


def test_valid_data_pass_unchanged():
    x, y = xy()
    checked = data.validate((x, y))
    assert isinstance(checked, data.Data)
    assert isinstance(checked.x, Array)
    np.testing.assert_array_equal(checked.x, x)
    np.testing.assert_array_equal(checked.y, y)
    assert checked.y.dtype == jnp.int32
    assert checked.weights is None


@pytest.mark.parametrize("form", [data.Data, tuple, list])
def test_the_forms_of_data(form):
    x, y = xy()
    pair = data.Data(x, y) if form is data.Data else form((x, y))
    np.testing.assert_array_equal(data.validate(pair).y, y)


@pytest.mark.parametrize(
    ("invalid", "says"),
    [
        (np.ones((6, 3)), r"an array \(6, 3\); for data without targets, pass \(x, None\)"),
        ((np.ones(3),), r"a tuple of 1; for data without targets, pass \(x, None\)"),
        (pd.DataFrame({"a": [1]}), r"DataFrame; data\.load\(frame, target=column\)"),
        (data.load("digits"), r"Dataset; pass its part \.train or \.test"),
        ({"x": 1, "y": 2}, "dict$"),
        (None, "NoneType$"),
    ],
)
def test_invalid_data(invalid, says):
    with pytest.raises(TypeError, match=r"must be nnjax.Data or a pair \(x, y\), got " + says):
        data.validate(invalid)


def test_data_without_targets():
    assert data.validate((np.ones((6, 3), F), None)).y is None


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        # lengths
        ({"y": np.arange(5)}, ValueError, "same number of rows, x has 6, y has 5"),
        # NaN and infinities: count and first position
        (
            {"x": ones_with(np.nan, ([4, 5], [1, 0]))},
            ValueError,
            r"data.x: 2 values are not finite, the first is nan at \[4, 1\]",
        ),
        (
            {"x": ones_with(-np.inf, (2, 2))},
            ValueError,
            r"data.x: 1 values are not finite, the first is -inf at \[2, 2\]",
        ),
        ({"x": ones_with(np.nan, (2, 2), dtype=jnp.bfloat16)}, ValueError, r"first is nan at \[2, 2\]"),
        ({"y": ones_with(np.inf, 3, (6,))}, ValueError, r"data.y: 1 values are not finite, the first is inf at \[3\]"),
        # strings and objects
        ({"x": np.full((6, 3), "a")}, TypeError, "data.x must be numbers, got <U1; encode"),
        ({"x": np.full((6, 3), None)}, TypeError, "data.x must be numbers, got object"),
        ({"y": np.array(list("ababab"))}, TypeError, r"data.y must be numbers, got <U1.*np\.unique"),
        ({"y": np.zeros(6, "datetime64[D]")}, TypeError, "got datetime64"),
        # no rows
        ({"x": np.ones((0, 3), F), "y": np.ones(0, int)}, ValueError, "data: 0 rows"),
        ({"x": (), "y": ()}, ValueError, "data: 0 rows"),
        # no row axis
        ({"x": F(1)}, ValueError, "data.x must have a leading axis of rows, got a scalar"),
        (
            {"x": [[0.0, 1.0], [1.0, 0.0]], "y": [0, 1]},
            ValueError,
            r"data.x/0/0 must have .*; convert lists",
        ),
        # integers that overflow
        ({"y": np.array([0, 2**31, 1, 1, 1, 1])}, ValueError, "data.y: 2147483648 in row 1 does not fit into int32"),
        ({"x": np.full((6, 1), -(2**40))}, ValueError, "data.x: -1099511627776 in row 0 does not fit"),
    ],
)
def test_mistakes_in_x_and_y(changed, error, message):
    with pytest.raises(error, match=message):
        data.validate(xy(**changed))
    with pytest.raises(error, match=message.replace("data", "validation")):
        data.validate(xy(**changed), "validation")


def test_fit_names_the_part_of_an_error():
    good, bad = xy(), xy(x=ones_with(np.nan, (0, 0)))
    with pytest.raises(ValueError, match=r"data.x: 1 values"):
        train.fit(run(), bad, epochs=1)
    with pytest.raises(ValueError, match=r"validation.x: 1 values"):
        train.fit(run(), good, epochs=1, validation=bad)


# Labels


@pytest.mark.parametrize(("label", "row"), [(2, 4), (-1, 0), (255, 5)])
def test_labels_out_of_range(label, row):
    y = np.arange(6, dtype=np.int32) % 2
    y[row] = label
    message = f"data.y: label {label} in row {row} is outside 0 … 1; the network has 2 outputs"
    with pytest.raises(ValueError, match=message):
        data.check_labels(data.Data(y, y), losses.cross_entropy, lambda x: jnp.zeros((len(x), 2)))
    for labels in (y, jnp.asarray(y)):
        with pytest.raises(ValueError, match=message):
            train.fit(run(), xy(y=labels), epochs=1)
    with pytest.raises(ValueError, match=message.replace("data.y", "validation.y")):
        train.fit(run(), xy(), epochs=1, validation=xy(y=y))


# Dtypes


def test_unscaled_bytes_become_floats_with_one_warning():
    images = ones_with(200, (1, 1), (6, 4, 4), np.uint8)
    with pytest.warns(UserWarning, match="uint8 values up to 200 are cast .* as in x / 255") as caught:
        checked = data.validate(xy(x=images))
    assert len(caught) == 1
    assert checked.x.dtype == jnp.float32
    np.testing.assert_array_equal(checked.x, images)


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_zeros_and_ones_become_floats_without_a_warning(dtype):
    assert data.validate(xy(x=np.eye(6, dtype=dtype))).x.dtype == jnp.float32


def test_float64_is_cast_with_one_warning():
    with pytest.warns(UserWarning, match=r"data.x: float64 is cast to float32") as caught:
        checked = data.validate(xy(x=np.ones((6, 3)), y=np.linspace(0, 1, 6)))
    assert len(caught) == 1
    assert checked.x.dtype == checked.y.dtype == jnp.float32
    with jax.enable_x64(True):
        checked = data.validate(xy(x=np.ones((6, 3)), y=np.arange(6)))
        assert checked.x.dtype == jnp.float64
        assert checked.y.dtype == jnp.int64


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.int64, jnp.int32), (np.uint8, jnp.int32), (bool, jnp.int32), (F, jnp.float32), (jnp.bfloat16, jnp.bfloat16)],
)
def test_dtypes_of_targets(dtype, expected):
    assert data.validate(xy(y=np.array([0, 1, 1, 0, 1, 0]).astype(dtype))).y.dtype == expected


def test_integers_in_x_stay_integers():
    assert data.validate(xy(x=np.arange(6))).x.dtype == jnp.int32  # for an embedding


def test_tables_and_series_of_pandas_are_arrays():
    frame = pd.DataFrame({"a": np.arange(6, dtype=F), "b": np.ones(6, F), "t": np.arange(6) % 2})
    checked = data.validate((frame[["a", "b"]], frame["t"]))
    assert checked.x.shape == (6, 2)
    with pytest.raises(TypeError, match=r"data.x must be numbers, got object"):
        data.validate((frame[["a"]].assign(c="text").astype(object), frame["t"]))


# Batch sizes


def test_batch_larger_than_the_data_works_with_one_warning():
    with pytest.warns(UserWarning, match="batch_size 9 is larger than the 6 examples") as caught:
        result = train.fit(run(9), xy(), epochs=3)
    assert len(caught) == 1
    assert len(result.losses) == 2
    assert np.isfinite(result.losses).all()


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-4, ValueError), (2.5, TypeError), (True, TypeError)])
def test_invalid_batch_sizes(size, error):
    with pytest.raises(error, match=r"batch_size must be (≥ 1|an integer), got"):
        run(size)


# A single class


def test_single_class_warns():
    with pytest.warns(UserWarning, match="data.y: all 6 labels are 1; a classifier needs at least two classes"):
        data.validate(xy(y=np.ones(6, int)))
    data.validate(xy(y=np.ones(6, F)))  # numbers may be equal
    data.validate(xy(rows=1))


# Pytrees and weights


def test_pytrees_as_x_and_y():
    x = {"image": np.ones((6, 2, 2), F), "words": np.arange(12).reshape(6, 2)}
    y = {"kind": np.arange(6) % 2, "size": np.ones((6, 1), F)}
    checked = data.validate((x, y))
    assert jax.tree.structure(checked.x) == jax.tree.structure(x)
    assert checked.x["words"].dtype == jnp.int32
    for changed, message in (
        ({"words": np.arange(10).reshape(5, 2)}, "x/image has 6, x/words has 5, y/kind has 6, y/size has 6"),
        ({"image": ones_with(np.nan, (1, 0, 1), (6, 2, 2))}, r"data.x/image: 1 values .* \[1, 0, 1\]"),
        ({"words": np.full((6, 2), "a")}, "data.x/words must be numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            data.validate((x | changed, y))


def test_weights():
    weights = [0, 1, 2, 0.5, 0, 3]
    for form in (weights, np.array(weights), jnp.asarray(weights)):
        checked = data.validate((*xy(), form))
        assert checked.weights.dtype == jnp.float32
        np.testing.assert_array_equal(checked.weights, weights)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(5), ValueError, r"x has 6, y has 6, weights has 5"),
        (np.ones((6, 1)), ValueError, r"data: weights must have the shape \(6,\), got \(6, 1\)"),
        (2.0, ValueError, "data.weights must have a leading axis of rows, got a scalar"),
        (ones_with(-0.5, 2, (6,)), ValueError, r"data.weights must be ≥ 0, got -0.5 in row 2"),
        (ones_with(np.nan, 2, (6,)), ValueError, r"data.weights: 1 values are not finite, the first is nan at \[2\]"),
        (["a"] * 6, TypeError, "data.weights must be numbers"),
    ],
)
def test_invalid_weights(weights, error, message):
    with pytest.raises(error, match=message):
        data.validate((*xy(), weights))
