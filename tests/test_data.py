"""Loading data sets by name and from files, and errors in them."""

import gzip
import json
import math
from importlib import resources

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from nnjax import data
from nnjax.data import _idx as idx
from nnjax.data._fit_table import MOST_CATEGORIES, MOST_CLASSES, choose_task
from nnjax.data._read_table import read_table
from nnjax.data.table import Column, Table

pytestmark = [  # small tables have columns like that
    pytest.mark.filterwarnings("ignore:.*looks like a row number"),
    pytest.mark.filterwarnings("ignore:.*interquartile ranges"),
]


def csv(folder, frame, name="file.csv"):
    """Write a CSV file and return its path."""
    path = folder / name
    pd.DataFrame(frame).to_csv(path, index=False)
    return str(path)


def npz(folder, name="file.npz", **arrays):
    path = folder / name
    np.savez(path, **arrays)
    return str(path)


def mixed(rows=40, seed=0):
    """Return a table with numbers, a category, booleans and text labels."""
    rng = np.random.default_rng(seed)
    return {
        "length [cm]": rng.normal(50, 10, rows),
        "count": rng.integers(0, 1000, rows),
        "colour": np.resize(["red", "green", "blue", "red"], rows),
        "ripe": np.resize([True, False, False], rows),
        "kind": np.resize(["plum", "apple"], rows),
    }


# Data by name


def test_digits_are_sklearns_with_a_fixed_stratified_test_part():
    digits = data.load("digits")
    bunch = load_digits()
    with resources.files("nnjax.data").joinpath("digits.npz").open("rb") as file:
        test = np.load(file)["test"]
    assert len(test) == 1797
    for part, rows in ((digits.train, ~test), (digits.test, test)):
        np.testing.assert_array_equal(np.asarray(part.x) * 16, bunch.data[rows])
        np.testing.assert_array_equal(part.y, bunch.target[rows])
        assert part.x.dtype == np.float32
        assert part.y.dtype == np.int32
        assert part.x.min() == 0
        assert part.x.max() == 1
        assert part.weights is None
    np.testing.assert_allclose(np.bincount(digits.test.y), np.bincount(bunch.target) / 5, atol=1)
    assert digits.table.classes == [str(i) for i in range(10)]


def test_digits_do_not_depend_on_seed_or_share():
    first, second = data.load("digits"), data.load("digits", seed=5, test_share=0.5)
    np.testing.assert_array_equal(first.test.x, second.test.x)
    assert first.table == second.table


def test_the_source_and_licence_of_the_digits_are_in_the_package():
    text = resources.files("nnjax.data").joinpath("digits.md").read_text()
    assert "CC BY 4.0" in text
    assert "Alpaydin" in text


def test_unknown_name_suggests_the_closest():
    with pytest.raises(ValueError, match=r"unknown data set 'digit' \(did you mean 'digits'\?\)"):
        data.load("digit")
    with pytest.raises(ValueError, match="did you mean 'fashion-mnist'"):
        data.load("mnist")


@pytest.mark.parametrize("arguments", [{"target": "y"}, {"task": "regression"}])
def test_target_and_task_are_not_silently_ignored_by_the_named_sets(arguments):
    with pytest.raises(ValueError, match=r"target, task, .* apply only to tables"):
        data.load("digits", **arguments)


# IDX files


def idx_bytes(array):
    code = {v: k for k, v in idx.DTYPES.items()}[array.dtype.newbyteorder(">").str.replace("|", ">")]
    return (
        bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(array.dtype).tobytes()
    )


@pytest.mark.parametrize("dtype", idx.DTYPES.values())
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_of_every_dtype_zipped_or_not(tmp_path, dtype, zipped):
    array = np.arange(-6, 18).reshape(2, 3, 4).astype(np.dtype(dtype))
    path = tmp_path / ("file.gz" if zipped else "file")
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    read = idx.read_idx(path)
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)


def test_idx_bytes_written_by_hand(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes.fromhex("00000801 00000003 070809"))
    np.testing.assert_array_equal(idx.read_idx(path), [7, 8, 9])
    path.write_bytes(bytes.fromhex("00000b02 00000001 00000002 0102 ffff"))
    np.testing.assert_array_equal(idx.read_idx(path), [[258, -1]])


WHOLE = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (WHOLE[:3], "is not an IDX file"),
        (b"\x89PNG" + WHOLE, "is not an IDX file"),
        (b"\0\0\x07" + WHOLE[3:], "is not an IDX file"),
        (WHOLE[:9], "it has 9 bytes, but a header for 3 axes has 16"),
        (WHOLE[:-1], r"expected 24 bytes after the header for shape \(2, 3, 4\), got 23 bytes"),
        (WHOLE + b"\0", "expected 24 bytes after the header for .*, got more bytes"),
        (b"\0\0\x08\x04" + b"\0\1\0\0" * 4, r"its header says \(65536, 65536, 65536, 65536\)"),  # 2**64 numbers
    ],
)
def test_damaged_idx_files(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        idx.read_idx(path)
    assert str(path) in str(caught.value)


def test_damaged_gz_files(tmp_path):
    path = tmp_path / "labels.gz"
    zipped = gzip.compress(WHOLE)
    middle = len(zipped) // 2
    flipped = zipped[:middle] + bytes([zipped[middle] ^ 255]) + zipped[middle + 1 :]
    for content in (zipped[:-9], WHOLE, zipped[:12], flipped):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"labels\.gz is damaged"):
            idx.read_idx(path)


def clothes(folder, label, zipped=False):
    """Write four IDX files that contain a single label."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in idx.NAMES:
        array = np.full((4, 2, 2), 51 * label, np.uint8) if "images" in name else np.full(4, label, np.uint8)
        content = idx_bytes(array)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.fixture
def no_clothes(tmp_path, monkeypatch):
    """Leave the two default folders empty."""
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "debian")
    monkeypatch.delenv(idx.DIRECTORY, raising=False)
    return tmp_path


def test_order_of_the_folders_of_fashion_mnist(no_clothes, monkeypatch):
    first_label = lambda data_dir=None: int(idx.read_fashion_mnist(data_dir)[1][0])  # noqa: E731
    clothes(no_clothes / "debian", 3)
    assert first_label() == 3
    monkeypatch.setenv(idx.DIRECTORY, str(no_clothes / "variable"))
    assert first_label() == 3
    clothes(no_clothes / "variable" / "fashion-mnist", 2, zipped=True)
    assert first_label() == 2
    clothes(no_clothes / "folder", 1)
    assert first_label(no_clothes / "folder") == 1
    with pytest.raises(FileNotFoundError, match="elsewhere"):  # no silent fallback to the default folders
        first_label(no_clothes / "elsewhere")


def test_fashion_mnist_is_loaded_flat_and_scaled(no_clothes):
    loaded = data.load("fashion-mnist", data_dir=clothes(no_clothes / "folder", 4, zipped=True))
    assert loaded.train.x.shape == (4, 4)
    np.testing.assert_allclose(loaded.test.x, 0.8)
    assert loaded.table.classes[int(loaded.test.y[0])] == "coat"
    frame = pd.DataFrame(np.full((1, 4), 204), columns=[f"x{i}" for i in range(4)])
    np.testing.assert_allclose(loaded.table.features(frame), 0.8)


def test_missing_fashion_mnist_explains_how_to_get_it(no_clothes):
    clothes(no_clothes / "part", 0)
    (no_clothes / "part" / idx.NAMES[2]).unlink()
    for data_dir in (None, no_clothes / "part"):
        with pytest.raises(FileNotFoundError) as caught:
            data.load("fashion-mnist", data_dir=data_dir)
        for text in ("apt-get install dataset-fashion-mnist", "https://", idx.DIRECTORY, *idx.NAMES):
            assert text in str(caught.value)
    assert "part" in str(caught.value)


# The task


@pytest.mark.parametrize(
    ("values", "task", "why"),
    [
        (["a", "b", "a"], "classification", "'t' holds text or booleans, 2 distinct values"),
        ([True, False, True], "classification", "'t' holds text or booleans, 2 distinct values"),
        ([0, 1, 7] * 3, "classification", "'t' holds 3 distinct integers"),
        ([0, 1, 7, 7], "regression", "'t' holds 3 distinct numbers"),  # too few rows for classes
        ([*range(MOST_CLASSES)] * 3, "classification", "integers"),
        ([*range(MOST_CLASSES + 1)] * 3, "regression", "'t' holds 21 distinct numbers"),
        ([0.0, 1.0, 2.0], "regression", "'t' holds 3 distinct numbers"),
    ],
)
def test_task_and_reason_follow_from_the_target(values, task, why):
    frame = {"t": np.array(list(values))}
    chosen, reason = choose_task(frame, "t")
    assert chosen == task
    assert why in reason
    assert choose_task(frame, "t", "regression") == ("regression", "task was set")


def test_the_task_can_be_overridden(tmp_path):
    frame = {"x": np.arange(30.0), "t": np.resize([10, 20, 30], 30)}
    as_labels, as_numbers = (data.load(csv(tmp_path, frame), target="t", task=t) for t in (None, "regression"))
    assert as_labels.table.classes == ["10", "20", "30"]
    assert as_labels.train.y.shape == (24,)
    assert as_labels.train.y.dtype == np.int32
    assert as_numbers.why == "task was set"
    assert as_numbers.train.y.shape == (24, 1)
    assert as_numbers.train.y.dtype == np.float32
    with pytest.raises(ValueError, match="unknown task 'clasification'"):
        data.load(csv(tmp_path, frame), target="t", task="clasification")


def test_the_rows_of_the_training_part_are_those_of_the_file(tmp_path):
    x = np.random.default_rng(0).permutation(30) * 1.0
    path = csv(tmp_path, {"x": x, "t": np.resize([1, 2, 3], 30)})
    loaded = data.load(path, target="t", seed=4)
    assert len(loaded.rows) == 24
    std, mean = loaded.table.std[0], loaded.table.mean[0]
    np.testing.assert_allclose(np.asarray(loaded.train.x)[:, 0] * std + mean, x[loaded.rows], atol=1e-4)
    assert data.load("digits").rows is None


def test_number_too_large_for_float32(tmp_path):
    frame = {"x": np.arange(30.0), "t": np.resize([1, 2, 3], 30)}
    table = data.load(csv(tmp_path, frame), target="t").table
    with pytest.raises(ValueError, match="row 2 holds a number too large for float32"):
        table.features(pd.DataFrame({"x": [1.0, 2.0, 1e300]}))


def test_text_cannot_be_regressed(tmp_path):
    with pytest.raises(ValueError, match="column 'kind' must hold numbers, got 'plum' in line 2"):
        data.load(csv(tmp_path, mixed()), target="kind", task="regression")


def test_numbers_as_labels_keep_their_order(tmp_path):
    loaded = data.load(csv(tmp_path, {"x": np.arange(30.0), "t": np.resize([10, 9, 100], 30)}), target="t")
    assert loaded.table.classes == ["9", "10", "100"]


# Tables


def test_text_labels_booleans_and_categories(tmp_path):
    frame = mixed()
    loaded = data.load(csv(tmp_path, frame), target="kind")
    table = loaded.table
    assert table.task == "classification"
    assert table.classes == ["apple", "plum"]
    assert table.columns == [
        Column("length [cm]"),
        Column("count"),
        Column("colour", "text", ["blue", "green", "red"]),
        Column("ripe", "text", ["False", "True"]),
    ]
    first, second = data.split_rows(np.array(frame["kind"]), 0.2)
    for part, rows in ((loaded.train, first), (loaded.test, second)):
        assert part.x.shape == (len(rows), 7)
        numbers = np.asarray(part.x) * np.array(table.std) + np.array(table.mean)
        np.testing.assert_allclose(numbers[:, 0], frame["length [cm]"][rows], rtol=1e-5)
        np.testing.assert_allclose(numbers[:, 1], frame["count"][rows], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(numbers[:, 2], frame["colour"][rows] == "blue", atol=1e-5)
        np.testing.assert_allclose(numbers[:, 6], frame["ripe"][rows], atol=1e-5)
        np.testing.assert_array_equal(np.array(table.classes)[np.asarray(part.y)], frame["kind"][rows])


def test_scales_come_from_the_training_rows(tmp_path):
    frame = mixed()
    path = csv(tmp_path, frame)
    before = data.load(path, target="count", task="regression")
    np.testing.assert_allclose(before.train.x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(before.train.x.std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(before.train.y.std(), 1, rtol=1e-5)
    assert abs(float(before.test.x[:, 0].mean())) > 1e-3
    _, held = data.split_rows(np.zeros(40), 0.2, stratify=False)
    frame["length [cm]"][held] += 1e6
    frame["count"][held] += 1_000_000
    after = data.load(csv(tmp_path, frame), target="count", task="regression")
    assert after.table == before.table
    np.testing.assert_array_equal(after.train.x, before.train.x)
    assert float(after.test.x[:, 0].min()) > 1e4


def test_category_that_occurs_only_in_the_test_part(tmp_path):
    """Otherwise the seed of the split would decide whether a file can be used."""
    frame = mixed()
    _, held = data.split_rows(np.array(frame["kind"]), 0.2)
    frame["colour"] = np.array(frame["colour"], object)
    frame["colour"][held[0]] = "violet"
    loaded = data.load(csv(tmp_path, frame), target="kind")
    assert loaded.table.columns[2].categories == ["blue", "green", "red", "violet"]
    np.testing.assert_array_equal(loaded.train.x[:, 5], 0)
    np.testing.assert_array_equal(loaded.test.x[:, 5], np.arange(len(held)) == 0)


@pytest.mark.parametrize("value", [3, 0.1, "same"])
def test_constant_columns_become_zeros(tmp_path, value):
    """The standard deviation of 0.1, 0.1, … is a rounding error, not 0."""
    frame = mixed()
    loaded = data.load(csv(tmp_path, {"constant": value, **frame}), target="kind")
    np.testing.assert_allclose(loaded.train.x[:, 0], 0, atol=1e-6)
    assert loaded.table.std[0] == 1


@pytest.mark.parametrize("column", ["count", "colour", "kind"])
def test_missing_values_are_counted_over_the_whole_file(tmp_path, column):
    frame = pd.DataFrame(mixed()).astype({"count": float})
    frame.loc[[7, 30, 33], column] = None
    rule = "drop', or any other rule, omits" if column == "kind" else "median"
    with pytest.raises(
        ValueError, match=f"column '{column}': 3 values are missing, the first in line 9; missing='{rule}"
    ):
        data.load(csv(tmp_path, frame), target="kind")


def test_infinite_numbers_are_refused_in_features_and_target(tmp_path):
    frame = mixed()
    frame["length [cm]"][9] = np.inf
    for target in ("length [cm]", "kind"):
        with pytest.raises(ValueError, match="line 11 holds an infinite number"):
            data.load(csv(tmp_path, frame), target=target)


def test_the_target_must_be_named_and_known(tmp_path):
    path = csv(tmp_path, mixed())
    with pytest.raises(ValueError, match=r"name the target, .* are length \[cm\], count, colour, ripe, kind"):
        data.load(path)
    with pytest.raises(ValueError, match=r"unknown target column 'color' \(did you mean 'colour'\?\)"):
        data.load(path, target="color")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"x": [1.0, 2, 3, 4], "t": list("abab")}, "4 rows are too few"),
        ({"x": [], "t": []}, "0 rows are too few"),
        ({"x": np.arange(9.0), "t": ["a"] * 9}, "column 't' holds only one class, 'a'; a classifier needs"),
        ({"x": np.arange(9.0), "t": [2.5] * 9}, "column 't' is 2.5 in all rows"),
        ({"t": list("ababab")}, "the target 't' is the only column"),
        (
            {"x": [f"w{i}" for i in range(9)], "t": list("ababababa")},
            "column 'x': 9 distinct strings in 9 rows, for example 'w0' in line 2; drop=",
        ),
        (
            {"x": [*map(str, range(MOST_CATEGORIES)), "?", "?"], "t": ["a", "b"] * (MOST_CATEGORIES // 2 + 1)},
            r"column 'x': 100 of 102 values are numbers, but '\?' in line 102 is not; na=",
        ),
    ],
)
def test_unusable_tables(tmp_path, frame, message):
    with pytest.raises(ValueError, match=message):
        data.load(csv(tmp_path, frame), target="t")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as CSV: line 0: no columns"),
        ("a,b\n1,2\n3,4,5\n", "line 3: 3 values, but the header has 2 names"),
        ("a,b\n1,2,3\n4,5,6\n", "line 2: 3 values, but the header has 2 names"),
        (b"\xff\x90,a\n1,2\n", "is not text in UTF-8"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "has no header: its first line holds numbers, 5.1, 3.5, setosa; add"),
    ],
)
def test_invalid_csv_files(tmp_path, text, message):
    path = tmp_path / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_csv_as_spreadsheets_write_it(tmp_path):
    """A byte-order mark, carriage returns, quotes, spaces after commas."""
    path = tmp_path / "file.CSV"
    path.write_bytes('\ufeffsize, "kind"\r\n1.5, "a, b"\r\n2, c\r\n'.encode())
    frame = read_table(path).frame
    assert list(frame) == ["size", "kind"]
    assert frame["kind"].tolist() == ["a, b", "c"]


def test_column_of_row_numbers_warns(tmp_path):
    path = tmp_path / "file.csv"
    pd.DataFrame(mixed()).to_csv(path)
    with pytest.warns(UserWarning, match="the first column has no name and numbers the rows, so it is left out"):
        data.load(str(path), target="kind")


def test_missing_files(tmp_path):
    for name in ("nowhere.csv", "nowhere.npz"):
        with pytest.raises(FileNotFoundError, match=r"no file .*nowhere"):
            data.load(str(tmp_path / name), target="t")


# NPZ files


def test_npz_arrays_are_flattened_and_standardised(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (50, 4, 3)).astype(np.uint8), np.resize([0, 1, 2], 50)
    loaded = data.load(npz(tmp_path, x=x, y=y[:, None]))
    assert loaded.table.task == "classification"
    assert loaded.table.classes == ["0", "1", "2"]
    assert loaded.train.x.shape[1] == 12
    np.testing.assert_allclose(loaded.train.x.mean(0), 0, atol=1e-5)
    _, held = data.split_rows(y.astype(str), 0.2)
    pixels = np.asarray(loaded.test.x) * np.array(loaded.table.std) + np.array(loaded.table.mean)
    np.testing.assert_allclose(pixels, x[held].reshape(-1, 12), atol=1e-3)
    assert data.load(npz(tmp_path, x=x, y=rng.normal(size=50))).table.task == "regression"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.arange(9)}, r"an array named x \(rows, ...\) is missing; the file has y"),
        ({}, "the file has no arrays"),
        ({"x": np.float32(1)}, "is a single number, not rows"),
        ({"x": np.ones((9, 2))}, "an array named y is missing"),
        ({"x": np.ones((9, 2)), "y": np.arange(8)}, r"got x \(9, 2\) and y \(8,\)"),
        ({"x": np.ones((9, 2)), "y": np.ones((9, 2))}, r"y \(9, 2\)"),
        ({"x": np.ones((0, 2)), "y": np.ones(0)}, "0 rows"),
        ({"x": np.array([{}] * 9), "y": np.arange(9)}, "array [xy]: it holds objects; convert them to numbers"),
        ({"x": np.ones((9, 1)), "y": np.array([None] * 9)}, "array [xy]: it holds objects; convert them to numbers"),
    ],
)
def test_npz_files_with_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        data.load(npz(tmp_path, **arrays))


def test_invalid_npz_files(tmp_path):
    path = tmp_path / "file.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(50, 4)), y=np.arange(50))
    whole = path.read_bytes()
    middle = len(whole) // 3
    for content in (b"", b"hello", whole[:-40], whole[:middle] + b"\0\0\0\0" + whole[middle + 4 :]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"file\.npz (is not an NPZ file|cannot be read as NPZ)"):
            data.load(str(path))
    with path.open("wb") as file:
        np.save(file, np.ones(9))
    with pytest.raises(ValueError, match="is not an NPZ file"):
        data.load(str(path))


# New rows for a fitted table


@pytest.fixture
def fitted(tmp_path):
    return data.load(csv(tmp_path, mixed()), target="kind").table


def test_new_rows_may_have_other_columns_in_another_order(fitted):
    frame = pd.DataFrame(mixed())
    turned = frame[["kind", "ripe", "colour", "count", "length [cm]"]].assign(more=1)
    np.testing.assert_array_equal(fitted.features(turned), fitted.features(frame))
    np.testing.assert_array_equal(fitted.features(frame[5:6].drop(columns="kind")), fitted.features(frame)[5:6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"colour": "violet"},
            "column 'colour': 'violet' is not among the categories in training, blue, green, red",
        ),
        ({"count": "many"}, "column 'count' must hold numbers, got 'many' in row 0"),
        ({"count": np.nan}, "column 'count': all 40 values are missing"),
        ({"count": np.inf}, "row 0 holds an infinite number"),
    ],
)
def test_new_rows_with_invalid_values(fitted, change, message):
    with pytest.raises(ValueError, match=message):
        fitted.features(pd.DataFrame(mixed()).assign(**change))


def test_new_rows_that_lack_columns_or_classes(fitted):
    frame = pd.DataFrame(mixed())
    with pytest.raises(ValueError, match="missing columns: count, ripe"):
        fitted.features(frame.drop(columns=["count", "ripe"]))
    with pytest.raises(ValueError, match="column 'kind': 'pear' is not among the classes apple, plum"):
        fitted.targets(frame.assign(kind="pear"))


@pytest.mark.parametrize("target", ["kind", "count"])
def test_table_survives_json(tmp_path, target):
    table = data.load(csv(tmp_path, mixed()), target=target).table
    plain = json.loads(json.dumps(table._asdict()))
    back = Table(**plain | {"columns": [Column(*column) for column in plain["columns"]]})
    assert back == table
    frame = pd.DataFrame(mixed(seed=1))
    np.testing.assert_array_equal(back.features(frame), table.features(frame))
    np.testing.assert_array_equal(back.targets(frame), table.targets(frame))


# The split


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.floats(0.02, 0.98), st.integers(0, 9), st.booleans())
def test_split_rows(labels, share, seed, stratify):
    y = np.array(labels)
    try:
        first, second = data.split_rows(y, share, seed=seed, stratify=stratify)
    except ValueError:  # a part would be empty
        assume(False)
    assert sorted([*first, *second]) == list(range(len(y)))
    assert list(first) == sorted(first)
    assert list(second) == sorted(second)
    again = data.split_rows(y, share, seed=seed, stratify=stratify)
    np.testing.assert_array_equal(again[1], second)
    if not stratify:
        assert len(second) == min(math.floor(len(y) * share + 0.5), len(y) - 1)
        return
    for label in np.unique(y):
        n, held = np.sum(y == label), np.sum(y[second] == label)
        assert held < n  # every class is in the training part
        assert abs(held - n * share) <= 1 + 1e-9 or held == n - 1
    assert len(second) <= len(y) * share + 0.5


def test_split_rows_draws_by_the_seed_and_keeps_proportions():
    y = np.resize([0, 0, 0, 1], 400)
    parts = [data.split_rows(y, 0.25, seed=seed)[1] for seed in range(2)]
    assert not np.array_equal(*parts)
    for part in parts:
        np.testing.assert_array_equal(np.bincount(y[part]), [75, 25])
        assert np.ptp(np.diff(part)) > 2  # not every fourth row


def test_many_small_classes_keep_the_total_share():
    y = np.repeat(np.arange(50), 3)  # 0.2 of 3 rounds to 1, which would be a third
    assert len(data.split_rows(y, 0.2)[1]) == 30


@pytest.mark.parametrize(
    ("y", "share", "message"),
    [
        (np.zeros(9), 0.0, r"share must be in \(0, 1\), got 0"),
        (np.zeros(9), 1.0, r"got 1"),
        (np.zeros(9), math.nan, "got nan"),
        (np.zeros(9), 0.01, "a share of 0.01 of 9 rows leaves one part empty"),
        (np.arange(9), 0.5, "leaves one part empty"),
        (np.zeros(1), 0.5, "a share of 0.5 of 1 rows leaves one part empty"),
        (np.zeros(0), 0.5, "0 rows"),
    ],
)
def test_invalid_splits(y, share, message):
    with pytest.raises(ValueError, match=message):
        data.split_rows(y, share)
