"""Examples that are read batch by batch: the same numbers as in memory, and errors that name the row."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnjax import data, losses
from nnjax.data import _mapped as mapped
from nnjax.data._source import pieces

F = np.float32
N = 5000  # more than the rows that are checked first
ROWS = np.array([4999, 0, 17, 17, 1])


def table(width=3, n=N, dtype=F):
    return np.random.default_rng(0).integers(0, 100, (n, width)).astype(dtype), np.arange(n) % 7


@pytest.fixture
def memmap(tmp_path):
    def make(array, mode="r"):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(file, array)
        return np.load(file, mmap_mode=mode)

    return make


@functools.cache
def wide_table(width):
    return table(width)[0]


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# Arrays


@pytest.mark.parametrize("width", [3, mapped.WIDE // 4])  # narrow rows, and wide rows, which are announced
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, N - 1), max_size=300), order=st.booleans())
def test_rows_of_a_file_are_those_of_the_array(tmp_path_factory, width, mode, rows, order):
    x = wide_table(width)
    file = tmp_path_factory.getbasetemp() / f"{width}.npy"
    if not file.exists():
        np.save(file, x)
    read = mapped.reader(np.load(file, mmap_mode=mode))
    rows = np.array(sorted(rows) if order else rows, np.int32)
    np.testing.assert_array_equal(read(rows), x[rows])


def test_part_of_a_mapped_file(memmap):
    x = wide_table(mapped.WIDE // 4)
    for part in (np.s_[100:], np.s_[::2], np.s_[:, 5:], np.s_[::-1]):
        np.testing.assert_array_equal(mapped.reader(memmap(x)[part])(ROWS // 3), x[part][ROWS // 3])


def test_private_changes_of_a_map_are_read(memmap):
    x = wide_table(mapped.WIDE // 4)
    private = memmap(x, "c")
    private[17] = -1
    assert (mapped.reader(private)(np.array([17])) == -1).all()
    assert (private[17] == -1).all()


def test_file_replaced_after_opening(tmp_path):
    x = wide_table(mapped.WIDE // 4)
    np.save(tmp_path / "x.npy", x)
    opened = np.load(tmp_path / "x.npy", mmap_mode="r")
    (tmp_path / "x.npy").unlink()
    np.save(tmp_path / "x.npy", x + 1)
    np.testing.assert_array_equal(mapped.reader(opened)(ROWS), x[ROWS])


@pytest.mark.parametrize("width", [3, mapped.WIDE])
def test_truncated_file(tmp_path, width):
    x, _ = table(width)
    np.save(tmp_path / "x.npy", x)
    read = mapped.reader(np.load(tmp_path / "x.npy", mmap_mode="r"))
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(10_000)
    with pytest.raises(OSError, match=rf"x\.npy has shrunk to 10000 bytes, expected at least {x.nbytes + 128}"):
        read(np.array([N - 1]))


@pytest.mark.parametrize("width", [3, mapped.WIDE])
def test_row_out_of_range(memmap, width):
    for row in (-1, N):
        with pytest.raises(IndexError, match=f"rows must be in 0 … {N - 1}"):
            mapped.reader(memmap(table(width)[0]))(np.array([row]))


@pytest.mark.parametrize("dtype", [F, np.float64, np.uint8, np.int64, bool])
def test_cast_as_validate_casts(memmap, dtype):
    x, y = table(dtype=dtype)
    with warnings.catch_warnings(record=True) as memory_warnings:
        warnings.simplefilter("always")
        whole = data.validate((x, y))
    with warnings.catch_warnings(record=True) as source_warnings:
        warnings.simplefilter("always")
        source = data.source(memmap(x), y)
        parts = [source.gather(rows) for rows in (ROWS, ROWS)]
    assert [str(w.message) for w in source_warnings] == [str(w.message) for w in memory_warnings]
    for part in parts:
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(part))
        assert_same(part, jax.tree.map(lambda a: a[ROWS], whole))


def test_x64(memmap):
    x, y = table(dtype=np.float64)
    with jax.enable_x64(True):
        assert data.source(memmap(x), y).gather(ROWS).x.dtype == np.float64


def test_mixed_pytrees(memmap):
    x, y = table()
    source = data.source({"a": memmap(x), "b": (jnp.asarray(x), x[:, 0])}, {"y": memmap(y)}, np.ones(N))
    part = source.gather(ROWS)
    np.testing.assert_array_equal(part.x["b"][1], x[ROWS, 0])
    assert part.x["b"][0].shape == (5, 3)
    assert part.y["y"].dtype == np.int32
    assert part.weights.dtype == F
    assert source.n == N
    assert source.bytes_per_row == 4 * (3 + 3 + 1 + 1 + 1)


def test_transform_of_stored_x(memmap):
    x, y = table(dtype=np.uint8)
    source = data.source(memmap(x), y, transform=lambda x: x / 255)  # no warning about scaling
    with pytest.warns(UserWarning, match="float64"):
        whole = data.validate((x / 255, y))
    assert_same(source.gather(ROWS), jax.tree.map(lambda a: a[ROWS], whole))


def test_array_that_requires_ascending_rows():
    """HDF5 data sets do."""
    x, y = table()

    class Ascending:
        shape, dtype = x.shape, x.dtype

        def __getitem__(self, rows):
            assert (np.diff(rows) > 0).all()
            return x[rows]

    np.testing.assert_array_equal(data.source(Ascending(), y).gather(ROWS).x, x[ROWS])


def test_digest():
    x, y = table()
    same = data.source(x, y).digest
    assert data.source(x.copy(), y).digest == same
    for change in (
        lambda: (x[:-1], y[:-1]),
        lambda: (x.astype(np.int32), y),
        lambda: (np.where(np.arange(N)[:, None] == N - 1, 0, x), y),
        lambda: (x, np.where(np.arange(N) == 0, 5, y)),
        lambda: (x, y, np.ones(N)),
    ):
        assert data.source(*change()).digest != same
    assert data.source(x, y, transform=lambda x: 2 * x).digest != same


def table_with(value, row, dtype=F):
    x, y = table(dtype=dtype)
    x[row, 2] = value
    return x, y


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named_by_row(value):
    with pytest.raises(ValueError, match=rf"data\.x: 1 values are not finite, the first is {value} at \[0, 2\]"):
        data.source(*table_with(value, 0))
    source = data.source(*table_with(value, 1))  # not one of the rows that are checked first
    with pytest.raises(ValueError, match=r"at \[1, 2\]; drop or fill them"):
        source.gather(ROWS)


def test_integer_that_does_not_fit():
    source = data.source(*table_with(2**40, 1, np.int64))
    with pytest.raises(ValueError, match=r"data\.x: 1099511627776 in row 1 does not fit into int32"):
        source.gather(ROWS)


def test_negative_weight():
    weights = np.ones(N)
    weights[1] = -2
    with pytest.raises(ValueError, match=r"data\.weights must be ≥ 0, got -2 in row 1"):
        data.source(*table(), weights).gather(ROWS)


def test_label_out_of_range():
    x, y = table()
    y[1] = 10
    source = data.check_labels(data.source(x, y), losses.cross_entropy, lambda x: jnp.zeros((len(x), 10)))
    assert source.gather(ROWS[:4]).y.shape == (4,)
    with pytest.raises(ValueError, match=r"label 10 in row 1 is outside 0 … 9; the network has 10 outputs"):
        source.gather(ROWS)


def test_mistakes_in_arrays():
    x, y = table()
    with pytest.raises(ValueError, match=r"the same number of rows, x has 5000, y has 4999"):
        data.source(x, y[:-1])
    with pytest.raises(ValueError, match="weights has 3"):
        data.source(x, y, np.ones(3))
    with pytest.raises(ValueError, match="0 rows"):
        data.source(x[:0], y[:0])
    with pytest.raises(TypeError, match=r"source\.x must be an array with shape and dtype, got str"):
        data.source("x.npy", y)
    with pytest.raises(ValueError, match=r"source\.y must have a leading axis"):
        data.source(x, np.float32(1))
    with pytest.raises(TypeError, match=r"data\.x must be numbers, got <U1"):
        data.source(np.full((N, 1), "a"), y)


def test_array_that_changes():
    x, y = table()

    class Moody:
        shape, dtype = x.shape, x.dtype
        answer = staticmethod(lambda rows: x[rows])

        def __getitem__(self, rows):
            return self.answer(rows)

    moody = Moody()
    source = data.source(moody, y)
    for answer, match in (
        (lambda rows: x[rows][:-1], r"got an array of shape \(3, 3\) for 4 rows"),
        (lambda rows: x[rows, :2], r"rows 4999, 0, 17 … 1 \(5 rows\) are data.x \(rows, 2\) float32"),
        (lambda rows: x[rows].astype(np.float16), r"data.x \(rows, 3\) float16.*; expected data.x \(rows, 3\) float32"),
    ):
        moody.answer = answer
        with pytest.raises(ValueError, match=match):
            source.gather(ROWS)


def test_mapped_x_becomes_a_source_and_everything_else_is_validated(memmap):
    x, y = table()
    assert isinstance(data.as_examples((memmap(x), y)), data.Source)
    assert isinstance(data.as_examples(({"a": x, "b": memmap(x)}, y)), data.Source)
    assert isinstance(data.as_examples((x, memmap(y))), data.Data)
    original = data.source(x, y)
    assert data.as_examples(original) is original


def test_data_and_source_answer_the_same_questions(memmap):
    x, y = table()
    whole, source = data.validate((x, y)), data.source(memmap(x), y)
    for examples in (whole, source):
        assert data.n_rows(examples) == N
        assert data.n_bytes(examples) == N * 4 * (3 + 1)
        assert_same(data.take_rows(examples, ROWS), jax.tree.map(lambda a: a[ROWS], whole))
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(data.take_rows(examples, ROWS)))
        assert_same(jax.tree.map(lambda a: a[:1], data.sample(examples)), jax.tree.map(lambda a: a[:1], whole))
        assert data.digest(examples) == data.digest(examples)
    assert data.digest(whole) != data.digest(whole._replace(y=whole.x))
    assert data.digest(source) == source.digest


def test_rows_of_data_may_be_traced():
    x, y = table()
    part = jax.jit(lambda rows: data.take_rows(data.Data(x, y), rows))(ROWS)
    np.testing.assert_array_equal(part.x, x[ROWS])


def test_source_for_validation_is_refused():
    with pytest.raises(TypeError, match="a Source can only be used for training"):
        data.validate(data.source(*table()))


def test_pieces_are_all_rows():
    rows = np.arange(10_000)
    np.testing.assert_array_equal(np.concatenate(pieces(rows, 1000)), rows)
    assert all(len(piece) == 1 for piece in pieces(rows[:5], 2**30))


# .npy files


def test_shards_cut_anywhere(tmp_path):
    x, y = table()
    for i, part in enumerate(np.split(x, [10, 4000])):
        np.save(tmp_path / f"x-{i:03d}.npy", part)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "weights-0.npy", np.ones(2000))
    np.save(tmp_path / "weights-1.npy", np.zeros(3000))
    source = data.open_npy(tmp_path)
    rows = np.array([0, 9, 10, 3999, 4000, 4999, 10])
    np.testing.assert_array_equal(source.gather(rows).x, x[rows])
    assert source.gather(rows).weights.tolist() == [1, 1, 1, 0, 0, 0, 1]
    files = data.open_npy(sorted(tmp_path.glob("x-*")), tmp_path / "y.npy", transform=lambda x: -x)
    np.testing.assert_array_equal(files.gather(rows).x, -x[rows])


def test_mistakes_in_folders(tmp_path):
    x, y = table()
    np.save(tmp_path / "x-0.npy", x)
    with pytest.raises(FileNotFoundError, match=r"holds neither y\.npy nor y-000\.npy"):
        data.open_npy(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing is not a folder"):
        data.open_npy(tmp_path / "nothing")
    with pytest.raises(ValueError, match="omit y and weights"):
        data.open_npy(tmp_path, tmp_path / "y.npy")
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "x-1.npy", x.astype(np.uint8))
    with pytest.raises(ValueError, match=r"x-1\.npy is \(5000, 3\) uint8, but .*x-0\.npy is \(5000, 3\) float32"):
        data.open_npy(tmp_path)


# Other libraries' data sets


@pytest.mark.parametrize("kind", ["arrays", "dict of lists", "one by one", "several", "tuples", "list"])
def test_protocols_give_the_same_examples(kind):
    x, y = table(n=50)
    names = {"x": "image", "y": "label"}
    asked = []

    class DataSet:
        def __len__(self):
            return 50

        def __getitem__(self, rows):
            asked.append(np.ndim(rows))
            if kind == "arrays" or np.ndim(rows) == 0:
                record = (x[rows], y[rows]) if kind in ("arrays", "tuples") else {"image": x[rows], "label": y[rows]}
            elif kind == "dict of lists":  # Hugging Face
                record = {"image": x[rows], "label": y[rows].tolist()}
            else:
                raise TypeError("one index, please")
            return record

    class Several(DataSet):
        def __getitems__(self, rows):
            assert isinstance(rows, list)
            return [{"image": x[i], "label": y[i]} for i in rows]

    dataset = Several() if kind == "several" else DataSet()
    if kind == "list":
        dataset = [(x[i], int(y[i])) for i in range(50)]
    source = data.records(dataset, **({} if kind in ("arrays", "tuples", "list") else names))
    asked.clear()
    rows = np.array([49, 0, 3, 3, 7])
    assert_same(source.gather(rows), data.source(x, y).gather(rows))
    expected = {"arrays": [1], "dict of lists": [1], "one by one": [0] * 4, "tuples": [0] * 4}
    assert asked == expected.get(kind, [])


def test_batch_that_differs_from_its_rows_is_not_used():
    x, y = table(n=50)

    class Columns:
        def __len__(self):
            return 50

        def __getitem__(self, i):
            return x[i] * np.ndim(i) + x[i], y[i]  # twice as much for an index array

    np.testing.assert_array_equal(data.records(Columns()).gather(np.array([4, 5])).x, x[4:6])


def test_several_columns_and_weights():
    records = [{"a": F(i), "b": [i, i], "y": i, "w": 0.5} for i in range(9)]
    part = data.records(records, x=("a", "b"), y="y", weights="w").gather(np.array([3, 8]))
    assert part.x[0].tolist() == [3, 8]
    assert part.x[1].tolist() == [[3, 3], [8, 8]]
    assert part.weights.tolist() == [0.5, 0.5]


def test_one_record():
    assert data.records([(np.ones(2, F), 1)]).gather(np.zeros(3, int)).y.tolist() == [1, 1, 1]


def test_mistakes_in_records():
    good = [{"image": np.ones(2, F), "label": 0}] * 3
    with pytest.raises(ValueError, match="a record has no 'picture'; its keys are image, label"):
        data.records(good, x="picture", y="label")
    with pytest.raises(TypeError, match=r"must be \(x, y\) .* got dict; name its keys, as in x='image'"):
        data.records(good)
    with pytest.raises(ValueError, match="a key for only one of x and y"):
        data.records(good, x="image")
    with pytest.raises(TypeError, match="must have __len__ and __getitem__, got generator"):
        data.records(i for i in range(3))
    with pytest.raises(ValueError, match="0 rows"):
        data.records([])
    ragged = [(np.ones(2 + (i == 4), F), 0) for i in range(6)]
    with pytest.raises(ValueError, match=r"the same shape, row 0 has \(2,\), row 4 has \(3,\); crop or pad them"):
        data.records(ragged)

    class Short:
        def __len__(self):
            return 3

        def __getitem__(self, i):
            raise AssertionError

        def __getitems__(self, rows):
            return [(F(1), 1)]

    with pytest.raises(ValueError, match="__getitems__ returned 1 records for 2 rows"):
        data.records(Short())


def test_torch_datasets():
    torch = pytest.importorskip("torch")
    x, y = table(n=50)
    rows = np.array([49, 0, 3, 3])
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    for dataset in (tensors, torch.utils.data.Subset(tensors, list(range(50)))):
        assert_same(data.records(dataset).gather(rows), data.source(x, y).gather(rows))
