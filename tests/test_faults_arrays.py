"""Arrays that are not plain numbers: each is converted to the right numbers, or refused with the name of its leaf."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnjax import data, losses, nn, optim, train

F = np.float32
N = 8
X = np.arange(N * 3, dtype=F).reshape(N, 3) / 8
Y = np.arange(N) % 2
MASK = np.zeros((N, 3), bool)
MASK[5, 1] = True


def changed(value, dtype):
    x = X.astype(dtype)
    x[5, 1] = value
    return x


class Unreadable:
    shape, dtype = (N, 3), np.dtype(F)

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("requires grad")

    def __getitem__(self, rows):
        return self


class FileWithMask:
    """A variable of netCDF4: indexing gives masked arrays."""

    shape, dtype = (N, 3), np.dtype(F)

    def __getitem__(self, rows):
        return np.ma.array(changed(9.96921e36, F), mask=MASK)[rows]


MASKED = r"1 values are masked, the first at \[5, 1\]; fill them, as in a.filled\(0\), or drop their rows"
# x -> the expected numbers, or the error and its message
ARRAYS = {
    # masks
    "masked": (np.ma.array(changed(1e36, F), mask=MASK), (ValueError, MASKED)),
    "masked integers": (np.ma.array(X.astype(int), mask=MASK), (ValueError, MASKED)),
    "masked NaN": (np.ma.masked_invalid(changed(np.nan, F)), (ValueError, MASKED)),
    "masked, in a file": (FileWithMask(), (ValueError, MASKED)),
    "masked nowhere": (np.ma.array(X, mask=False), X),
    # not finite
    "complex NaN": (changed(np.nan, np.complex64), (ValueError, r"1 values are not finite, .* at \[5, 1\]")),
    "complex, imaginary inf": (changed(complex(0, np.inf), np.complex64), (ValueError, r"not finite, .* at \[5, 1\]")),
    "long double NaN": (changed(np.nan, np.longdouble), (ValueError, r"not finite, .* at \[5, 1\]")),
    "big-endian inf": (changed(np.inf, ">f4"), (ValueError, r"not finite, .* at \[5, 1\]")),
    # too large
    "float64 beyond float32": (changed(1e39, float), (ValueError, r"1e\+39 in row 5 does not fit into float32")),
    "negative": (changed(-1e300, float), (ValueError, r"-1e\+300 in row 5 does not fit into float32")),
    "long double beyond float32": (changed(1e39, np.longdouble), (ValueError, "in row 5 does not fit into float32")),
    "complex128 beyond complex64": (changed(1e39j, complex), (ValueError, r"in row 5 does not fit into complex64")),
    "the largest that fits": (changed(3e38, float), changed(3e38, F)),
    "int64 beyond int32": (changed(2**31, np.int64), (ValueError, "2147483648 in row 5 does not fit into int32")),
    "uint64 beyond int64": (changed(2**64 - 1, np.uint64), (ValueError, "18446744073709551615 in row 5 does not fit")),
    # byte order and width
    "big-endian float32": (X.astype(">f4"), X),
    "big-endian float64": (X.astype(">f8"), X),
    "big-endian int16": (X.astype(">i2"), X.astype(np.int32)),
    "big-endian int64": (X.astype(">i8"), X.astype(np.int32)),
    "long double": (X.astype(np.longdouble), X),
    "long complex": (X.astype(np.clongdouble), X.astype(np.complex64)),
    "complex128": (X.astype(complex), X.astype(np.complex64)),
    "float16": (X.astype(np.float16), X.astype(np.float16)),
    "bfloat16": (X.astype(jnp.bfloat16), X.astype(jnp.bfloat16)),
    "int8": (X.astype(np.int8), X.astype(np.int32)),
    "uint8": ((X > 1).astype(np.uint8), (X > 1).astype(F)),
    "uint32": (X.astype(np.uint32), X.astype(np.int32)),
    "booleans": (X > 1, (X > 1).astype(F)),
    # not numbers
    "durations": (X.astype("m8[s]"), (TypeError, r"must be numbers, got timedelta64\[s\]")),
    "dates": (X.astype("M8[s]"), (TypeError, r"must be numbers, got datetime64\[s\]")),
    "bytes": (X.astype("S3"), (TypeError, r"must be numbers, got \|S")),
    "records": (np.zeros(N, [("a", F)]), (TypeError, "must be numbers, got ")),
    "an array that NumPy cannot read": (Unreadable(), (TypeError, "must be an array of numbers, got Unreadable: req")),
}


def in_memory(x):
    return data.as_examples((x, Y))


def read(x, y=Y):
    """From a source made of the array, all rows."""
    return data.source(x, y).gather(np.arange(N))


def by_hand(x):
    """From a source that a user has filled in."""
    source = data.Source(N, lambda rows: data.Data(x[rows], Y[rows]), 12, "")
    return data.as_examples(source).gather(np.arange(N))


def as_records(x):
    return data.records([(x[i], Y[i]) for i in range(N)]).gather(np.arange(N))


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("enter", [in_memory, read, by_hand, as_records])
def test_arrays(name, enter):
    x, expected = ARRAYS[name]
    if (isinstance(x, Unreadable | FileWithMask) and enter is as_records) or (
        isinstance(x, Unreadable) and enter is read
    ):
        pytest.skip("fails in the caller's own object")
    if isinstance(x, FileWithMask) and enter is in_memory:
        x = x[np.arange(N)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # float64 is cast
        if isinstance(expected, tuple):
            with pytest.raises(expected[0], match=r"(data|source)\.x.*" + expected[1]):
                enter(x)
            return
        result = enter(x).x
    assert result.dtype == expected.dtype
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, expected)


MASKED_ROW = np.ma.masked_equal(np.r_[np.ones(5), -999, 1, 1].astype(F), -999)


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        (r"data\.y", (X, MASKED_ROW)),
        (r"data\.y/a", (X, {"a": MASKED_ROW})),
        (r"data\.weights", (X, Y, MASKED_ROW)),
        (r"data\.x/1", ((X, MASKED_ROW), Y)),
    ],
)
def test_masks_of_all_parts(place, parts, tmp_path):
    message = place + r": 1 values are masked, the first at \[5\]"
    mapped = np.memmap(tmp_path / "x", F, "w+", shape=X.shape)
    for enter in (data.validate, data.as_examples, lambda parts: data.source(*parts)):
        with pytest.raises(ValueError, match=message):
            enter(parts)
    if parts[0] is X:
        with pytest.raises(ValueError, match=message):
            data.as_examples((mapped, *parts[1:]))


WEIGHTS = {
    "integers": (np.ones(N, int), None),
    "booleans": (Y > 0, None),
    "a list": ([1.0] * N, None),
    "big-endian": (np.ones(N, ">f8"), None),
    "complex": (np.ones(N, complex), (TypeError, "weights must be real numbers")),
    "beyond float32": (np.r_[1e39, np.ones(N - 1)], (ValueError, r"weights: 1e\+39 in row 0 does not fit")),
    "a sum beyond float32": (np.full(N, 1e38), (ValueError, "weights: their sum is too large for float32; divide")),
    "negative": (np.r_[np.ones(N - 1), -1], (ValueError, "weights must be ≥ 0, got -1 in row 7")),
    "text": (["1"] * N, (TypeError, "weights must be numbers")),
    "one number": (1.0, (ValueError, "weights must have a leading axis of rows")),
    "columns": (np.ones((N, 1)), (ValueError, r"weights must have the shape \(8,\)")),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(name):
    weights, error = WEIGHTS[name]
    if error is None:
        result = data.as_examples((X, Y, weights)).weights
        np.testing.assert_array_equal(result, np.asarray(weights, F))
        assert result.dtype == F
        return
    with pytest.raises(error[0], match=error[1]):
        data.as_examples((X, Y, weights))


def test_x64_keeps_wide_numbers():
    with jax.enable_x64(True), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert data.validate((changed(1e39, float), Y)).x[5, 1] == 1e39
        assert data.validate((X.astype(np.longdouble), Y)).x.dtype == np.float64
        assert data.validate((X.astype(np.clongdouble), Y)).x.dtype == np.complex128
        with pytest.raises(ValueError, match=r"1e\+4000 in row 5 does not fit into float64; scale it$"):
            data.validate((changed(np.longdouble("1e4000"), np.longdouble), Y))


def test_x_without_arrays():
    with pytest.raises(ValueError, match="data: x holds no array"):
        data.validate(((), Y))


def test_fit_inside_jit():
    run = train.Run(nn.dense(2), losses.cross_entropy, optim.sgd(0.1), batch_size=4)
    with pytest.raises(TypeError, match=r"fit: cannot run inside jax\.jit, .*run\.steps"):
        jax.jit(lambda x: train.fit(run, (x, Y), epochs=1, progress=False).losses)(X)
