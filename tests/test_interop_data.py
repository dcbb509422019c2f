"""Data of other packages: frames of pandas, data sets of Hugging Face and Grain."""

from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from nnjax import data, losses, nn, optim, train
from nnjax.data._fit_table import choose_task, fit_table

N = 24
NUMBERS, TEXTS, YES = np.arange(N) % 5, np.array(["a", "b", "c"])[np.arange(N) % 3], np.arange(N) % 2 == 0
X, Y = np.linspace(-1, 1, 4 * N, dtype=np.float32).reshape(N, 4), (np.arange(N) % 3).astype(np.int32)
RUN = train.Run(nn.mlp([8], 3), losses.cross_entropy, optim.adam(1e-2), batch_size=8)

# pandas --------------------------------------------------------------------------------------------------------------

FIVE, THREE, BOOLEANS = ["0", "1", "2", "3", "4"], ["a", "b", "c"], ["False", "True"]
COLUMNS = {  # the column, and its categories: None for numbers
    "bool": (pd.Series(YES), BOOLEANS),
    "boolean": (pd.Series(YES, dtype="boolean"), BOOLEANS),
    "Int64": (pd.Series(NUMBERS, dtype="Int64"), None),
    "UInt8": (pd.Series(NUMBERS, dtype="UInt8"), None),
    "Float32": (pd.Series(NUMBERS + 0.5, dtype="Float32"), None),
    "sparse": (pd.Series(pd.arrays.SparseArray(NUMBERS)), None),
    "object of integers": (pd.Series(NUMBERS.tolist(), dtype=object), None),
    "object of floats": (pd.Series([*NUMBERS[:-1].tolist(), 0.5], dtype=object), None),
    "decimals": (pd.Series([Decimal(int(number)) for number in NUMBERS]), None),
    "object of booleans": (pd.Series(YES.tolist(), dtype=object), BOOLEANS),
    "object of booleans and integers": (pd.Series([True, 2] * (N // 2), dtype=object), ["2", "True"]),
    "object of strings": (pd.Series(TEXTS, dtype=object), THREE),
    "string": (pd.Series(TEXTS, dtype="string"), THREE),
    "category": (pd.Series(TEXTS, dtype="category"), THREE),
    "category, ordered": (pd.Series(pd.Categorical(TEXTS, ordered=True)), THREE),
    "category, one unused": (pd.Series(pd.Categorical(TEXTS, categories=[*THREE, "z"])), THREE),
    "category of integers": (pd.Series(NUMBERS, dtype="category"), FIVE),
    "category of floats": (pd.Series(NUMBERS / 2, dtype="category"), ["0.0", "0.5", "1.0", "1.5", "2.0"]),
    "category of booleans": (pd.Series(YES, dtype="category"), BOOLEANS),
}
MISSING = {
    "boolean": pd.Series([None, *YES[1:]], dtype="boolean"),
    "Int64": pd.Series([None, *NUMBERS[1:]], dtype="Int64"),
    "Float64": pd.Series([None, *NUMBERS[1:]], dtype="Float64"),
    "object": pd.Series([None, *NUMBERS[1:].tolist()], dtype=object),
    "string": pd.Series([None, *TEXTS[1:]], dtype="string"),
    "category": pd.Series([None, *TEXTS[1:]], dtype="category"),
    "category of integers": pd.Series([None, *NUMBERS[1:]], dtype="category"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_a_frame(name):
    column, categories = COLUMNS[name]
    frame = pd.DataFrame({"column": column, "target": TEXTS})
    table = fit_table(frame, "target", "classification", np.arange(N))
    assert table.columns[0].categories == categories
    features = table.features(frame)
    if categories is None:
        expected = column.astype(float).to_numpy()[:, None]
    else:
        expected = np.asarray(column.astype(str), object)[:, None] == np.array(categories, object)[None]
    np.testing.assert_allclose(features, (expected - expected.mean(0)) / expected.std(0), rtol=1e-5, atol=1e-6)
    one = table.features(frame.iloc[3:4])
    np.testing.assert_array_equal(one, features[3:4])


@pytest.mark.parametrize("name", COLUMNS)
def test_targets_of_a_frame(name):
    column, categories = COLUMNS[name]
    frame = pd.DataFrame({"column": X[:, 0], "target": column})
    task, _ = choose_task(frame, "target")
    if categories is not None:
        assert task == "classification"
    labels = fit_table(frame, "target", "classification", np.arange(N))
    names = np.array(labels.classes)[labels.targets(frame)]
    assert [float(n) if categories is None else n for n in names] == [
        float(v) if categories is None else str(v) for v in column
    ]


@pytest.mark.parametrize("name", MISSING)
def test_missing_values_of_a_frame_are_refused(name):
    frame = pd.DataFrame({"column": MISSING[name], "target": TEXTS})
    with pytest.raises(ValueError, match="column 'column': 1 value is missing, the first in row 0"):
        fit_table(frame, "target", "classification", np.arange(N))


# Data sets of records ------------------------------------------------------------------------------------------------


def losses_of(records):
    return train.fit(RUN, records, epochs=2, progress=False).losses


@pytest.fixture(scope="module")
def expected():
    return losses_of((X, Y))


@pytest.fixture(scope="module")
def rows():
    datasets = pytest.importorskip("datasets")
    features = {"x": datasets.Sequence(datasets.Value("float32"), 4), "y": datasets.ClassLabel(names=["a", "b", "c"])}
    return datasets.Dataset.from_dict({"x": X, "y": Y}, features=datasets.Features(features))


@pytest.mark.parametrize("form", ["numpy", "jax", "torch"])
def test_formats_of_hugging_face(form, rows, expected):
    pytest.importorskip(form)
    np.testing.assert_array_equal(losses_of(data.records(rows.with_format(form), x="x", y="y")), expected)


@pytest.mark.filterwarnings("ignore:data.x. float64 is cast")  # lists of Python numbers
@pytest.mark.parametrize("change", ["none", "select", "map", "with_transform"])
def test_views_of_hugging_face(change, rows, expected):
    views = {
        "none": lambda: rows,
        "select": lambda: rows.select(range(N)),
        "map": lambda: rows.map(lambda row: {"x": [2 * value for value in row["x"]]}, load_from_cache_file=False),
        "with_transform": lambda: rows.with_transform(lambda batch: batch | {"x": np.float32(batch["x"])}),
    }
    factor = 2 if change == "map" else 1
    got = losses_of(data.records(views[change](), x="x", y="y"))
    np.testing.assert_array_equal(got, expected if factor == 1 else losses_of((factor * X, Y)))


def test_images_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8)
    images = datasets.Dataset.from_dict(
        {"image": [pillow.fromarray(image) for image in pixels], "label": [0, 1, 2] * 2},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    source = data.records(images, x="image", y="label", transform=lambda x: x / 255)
    np.testing.assert_allclose(source.gather(np.array([4, 1])).x, pixels[[4, 1]] / 255, rtol=1e-6)


def test_whole_and_iterable_data_sets_of_hugging_face_are_refused(rows):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(TypeError, match=r"got DatasetDict; pass one of its parts, such as dataset\['train'\]"):
        data.records(datasets.DatasetDict({"train": rows}), x="x", y="y")
    with pytest.raises(TypeError, match="must have __len__ and __getitem__, got IterableDataset"):
        data.records(rows.to_iterable_dataset(), x="x", y="y")


class Records:
    """A source for Grain."""

    def __len__(self):
        return N

    def __getitem__(self, row):
        return {"x": X[row], "y": Y[row]}


def test_sources_of_grain(expected):
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(Records())
    pairs = source.map(lambda row: (row["x"], row["y"]))
    np.testing.assert_array_equal(losses_of(data.records(source, x="x", y="y")), expected)
    np.testing.assert_array_equal(losses_of(data.records(pairs)), expected)
    order = np.array([row["y"] for row in source.shuffle(seed=0)]), np.stack([r["x"] for r in source.shuffle(seed=0)])
    shuffled = losses_of(data.records(source.shuffle(seed=0), x="x", y="y"))
    np.testing.assert_array_equal(shuffled, losses_of((order[1], order[0])))


def test_endless_and_iterable_sources_of_grain_are_refused():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.source(Records())
    with pytest.raises(ValueError, match="n must be < 2"):
        data.records(source.repeat(), x="x", y="y")
    with pytest.raises(TypeError, match=r"must have __len__ and __getitem__, got .*IterDataset"):
        data.records(source.to_iter_dataset(), x="x", y="y")


def test_batches_of_packages_are_generators(rows):
    grain = pytest.importorskip("grain")
    batches = grain.MapDataset.source(Records()).map(lambda row: (row["x"], row["y"])).repeat().batch(8)
    stream = (
        (jnp.asarray(batch["x"]), jnp.asarray(batch["y"]))
        for batch in rows.with_format("numpy").to_iterable_dataset().batch(8)
    )
    first = train.fit(RUN, batches.to_iter_dataset(), steps=3, progress=False).losses
    np.testing.assert_array_equal(train.fit(RUN, stream, steps=3, progress=False).losses, first)
