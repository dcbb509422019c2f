"""Tables that were misread, or that made files lose numbers: each row of a table here is an input and its outcome."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import SMALL, assert_mistake, nnjax, succeed

from nnjax import data
from nnjax.cli.prediction_file import PREDICTIONS, check_output, columns_of
from nnjax.cli.prediction_file import write as write_predictions
from nnjax.data._fit_table import _moments
from nnjax.data._read_table import read_new_rows, read_table
from nnjax.data.table import Column, Table, check_table, encode

pytestmark = [  # small tables have columns like that
    pytest.mark.filterwarnings("ignore:.*looks like a row number"),
    pytest.mark.filterwarnings("ignore:.*interquartile ranges"),
]

LARGE = 2**53 + 1  # float64 cannot hold it


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def equal(read, expected):
    return read.tolist() == expected or (
        read.dtype == float and np.array_equal(read, np.array(expected, float), equal_nan=True)
    )


# The column c of a CSV file with the columns c and b, and the values that it holds

nan = math.nan
COLUMNS = {
    "integers": (["1", "2"], (), [1, 2]),
    "signs": (["+1", "-2"], (), [1, -2]),
    "floats": (["1", "2.5", "1e3", ".5"], (), [1.0, 2.5, 1000.0, 0.5]),
    "codes": (["01", "1", "A"], (), ["01", "1", "A"]),
    "late text": (["01"] * 40_000 + ["unknown"], (), ["01"] * 40_000 + ["unknown"]),
    "codes by option": (["01", "1"], ("c",), ["01", "1"]),
    "floats by option": (["1.0", "1"], ("c",), ["1.0", "1"]),
    "spaces": (["yes", "yes ", " yes", '" yes "', "yes\t", "yes\xa0"], (), ["yes"] * 6),
    "spaces around numbers": (["1 ", " 2", '" 3 "'], (), [1, 2, 3]),
    "spellings of an accent": (["café", "cafe\u0301"], (), ["café"] * 2),
    "case": (["Yes", "yes"], (), ["Yes", "yes"]),
    "booleans": (["true", "TRUE", "False"], (), ["True", "True", "False"]),
    "missing text": (["a", "", "NA", "None", "null", "nan", " NA "], (), ["a"] + [None] * 6),
    "missing number": (["1", "", "NA", "nan"], (), [1.0, nan, nan, nan]),
    "only missing": (["", "NA"], (), [nan, nan]),
    "quoted": (['"NA"', '"None"', '"null"', '"nan"', '"N/A"', "a"], (), ["NA", "None", "null", "nan", "N/A", "a"]),
    "quoted and not": (['"NA"', "NA"], (), ["NA", None]),
    "quoted with spaces": (['" NA "', "a"], (), ["NA", "a"]),
    "quoted nan among numbers": (['"nan"', "1"], (), ["nan", "1"]),
    "quoted and empty": (['""', "a"], (), [None, "a"]),
    "missing words by option": (["NA", "None", '"NA"', ""], ("c",), ["NA", "None", "NA", None]),
    "lower case none": (["none", "mild"], (), ["none", "mild"]),
    "quotes in quotes": (['"say ""NA"""', '"a,""NA"",b"'], (), ['say "NA"', 'a,"NA",b']),
    "lines in quotes": (['"a\n""NA"",b"', '"NA"'], (), ['a\n"NA",b', "NA"]),
    "underscores": (["1_000", "2"], (), ["1_000", "2"]),
    "hexadecimal": (["0x10", "2"], (), ["0x10", "2"]),
    "exact integers": ([str(LARGE), str(LARGE + 1)], (), [LARGE, LARGE + 1]),
    "integers among floats": ([str(LARGE), "0.5"], (), [str(LARGE), "0.5"]),
    "integers beyond int64": (["99999999999999999999", "1"], (), ["99999999999999999999", "1"]),
    "5000 digits": (["9" * 5000, "1"], (), ["9" * 5000, "1"]),
}


@pytest.mark.filterwarnings("ignore:column 'c' is read as numbers")
@pytest.mark.parametrize(("fields", "categorical", "expected"), COLUMNS.values(), ids=COLUMNS)
def test_values_of_a_column(tmp_path, fields, categorical, expected):
    path = write(tmp_path / "t.csv", "c,b\n" + "".join(f"{field},1\n" for field in fields))
    read = read_table(path, kinds=dict.fromkeys(categorical, "category")).frame["c"]
    assert equal(read, expected), read
    assert [type(value) for value in read.tolist()] == [type(value) for value in expected]


@pytest.mark.parametrize(("fields", "warns"), [(["01", "1"], True), (["-00.5"], False), (["0.5", "0"], False)])
def test_numbers_that_may_be_codes_are_warned_of(tmp_path, fields, warns):
    path = write(tmp_path / "t.csv", "c,b\n" + "".join(f"{field},1\n" for field in fields))
    if warns:
        with pytest.warns(UserWarning, match="column 'c' is read as numbers, but '01' has leading zeros"):
            read_table(path)
    else:
        read_table(path)


def test_a_new_file_is_read_with_the_kinds_of_training(tmp_path):
    """A category must not depend on the other rows of its file."""
    code, kind = ["01", "1", "A", "2"], {"01": "p", "1": "q", "A": "p", "2": "q"}
    lines = [f"{code[i % 4]},{i * 37 % 100 / 100},{kind[code[i % 4]]}\n" for i in range(120)]
    table = data.load(str(write(tmp_path / "t.csv", "c,b,t\n" + "".join(lines))), target="t").table
    assert table.columns[0] == Column("c", "text", ["01", "1", "2", "A"])
    rows = [
        read_new_rows(write(tmp_path / "n.csv", f"c,b\n{row}"), table).frame
        for row in ("01,.1\nA,.1\n", "01,.1\n1,.1\n")
    ]
    first, second = (table.features(row) for row in rows)
    np.testing.assert_array_equal(first[0], second[0])
    assert (first[1] != second[1]).any()


STORED = {  # the column in training, by option or not; the column in a new file; the categories or the message
    "quoted NA": (['"NA"', "DE"], (), ['"NA"', "DE"], ["DE", "NA"]),
    "NA, quoted in training": (
        ['"NA"', "DE"],
        (),
        ["NA", "DE"],
        "column 'c': 1 value is missing, the first in line 2",
    ),
    "NA by option": (["NA", "DE"], ("c",), ["NA", "DE"], ["DE", "NA"]),
    "codes by option": (["01", "1"], ("c",), ["1", "01"], ["01", "1"]),
    "codes by option, other writing": (["01", "1"], ("c",), ["1", "001"], "'001' is not among the categories"),
    "spaces": (["yes", "no"], (), ["yes ", " no"], ["no", "yes"]),
    "booleans": (["True", "False"], (), ["TRUE", "false"], ["False", "True"]),
    "numbers with leading zeros": (["1", "2"], (), ["01", "2"], None),
    "text among numbers": (["1", "2"], (), ["A", "2"], "column 'c' must hold numbers, got 'A' in line 2"),
    "digits that would be lost": (
        ["1", "2"],
        (),
        ["1", str(LARGE)],
        f"{LARGE} in line 3 has more digits",
    ),
}


@pytest.mark.parametrize(("training", "categorical", "new", "outcome"), STORED.values(), ids=STORED)
def test_kinds_are_stored(tmp_path, training, categorical, new, outcome):
    rows = "".join(f"{training[i % 2]},{i},{'pq'[i % 3 == 0]}\n" for i in range(30))
    path = write(tmp_path / "t.csv", "c,b,t\n" + rows)
    table = data.load(str(path), target="t", categorical=categorical).table
    file = write(tmp_path / "n.csv", "c,b\n" + "".join(f"{field},1\n" for field in new))
    if isinstance(outcome, str):
        with pytest.raises(ValueError, match=outcome):  # noqa: PT012
            read = read_new_rows(file, table)
            table.features(read.frame, lines=read.lines)
        return
    assert table.columns[0].categories == outcome
    assert np.isfinite(table.features(read_new_rows(file, table).frame)).all()


REFUSED = {  # a whole CSV file, and the message
    "missing words": (
        "c,t\n" + "NA,a\nx,b\n" * 5,
        "column 'c': 5 values are missing, the first in line 2.*keeps words such as NA",
    ),
    "one class": ("b,t\n" + "1,yes\n2,yes \n" * 5, "only one class, 'yes'"),
    "two columns of a name": ("a,a,t\n1,2,3\n", "two columns are named 'a'; rename one of them, or drop all columns"),
    "two columns of a name and spaces": ("a, a ,t\n1,2,3\n", "two columns are named 'a'"),
    "a name that a nameless column gets": ("Unnamed: 1,,t\n1,2,3\n", "two columns are named 'Unnamed: 1'"),
    "large integers as feature": (
        f"id,t\n{LARGE},a\n5,b\n" * 1 + "1,a\n2,b\n" * 5,
        f"'id': {LARGE} in line 2 has more",
    ),
    "large integers as target": ("b,t\n" + "".join(f"{i},{LARGE + i}\n" for i in range(30)), f"'t': {LARGE} in line 2"),
    "short row": ("a,b,t\n1,2,3\n1,2\n", "line 3: 2 values, but the header has 3 names"),
    "quote that does not end": ('a,t\n1,"x\n2,y\n', "line 3: unexpected end of data"),
    "quote in a later row": (
        'a,t\n1,x\n2,y\n"3,x\n' + "4,y\n" * 5,
        "line 9: unexpected end of data; close the quote that begins in line 3 or later",
    ),
    "text after a quote": ('a,t\n1,"x"y\n', "line 2: ',' expected after '\"'"),
    "one row": ("a,t\n1,x\n", "1 row is too few to train and to test"),
    "infinity": ("a,t\n" + "inf,x\n1,y\n" * 5, "column 'a': line 2 holds an infinite number"),
    "beyond float64": ("a,t\n" + "1e999,x\n1,y\n" * 5, "column 'a': line 2 holds an infinite number"),
    "another separator": (
        "a^t\n" + "1^x\n2^y\n" * 5,
        r"a single column, 'a\^t'; .* name it with --sep, or sep= in Python",
    ),
    "line between rows of one column": ("a\n1\n\n2\n", "name the target"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_tables(tmp_path, text, message):
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(ValueError, match=message):
        data.load(str(path), target=None if "name the target" in message else "t")


def test_columns_that_are_dropped_may_share_a_name_and_be_long(tmp_path):
    rows = [f"1,2,{'long ' * 30_000},{i},{'pq'[i % 2]}\n" for i in range(8)]  # longer than 2**17 characters
    path, limit = write(tmp_path / "t.csv", "a,a,text,b,t\n" + "".join(rows)), csv.field_size_limit()
    loaded = data.load(str(path), target="t", drop=["a", "text"])
    assert [column.name for column in loaded.table.columns] == ["b"]
    assert csv.field_size_limit() == limit
    assert equal(read_new_rows(path, loaded.table).frame["b"], list(range(8)))
    with pytest.raises(ValueError, match=r"two columns are named 'a'; rename one of them$"):
        read_new_rows(path, loaded.table, keep=["a"])


def test_an_empty_line_in_a_file_of_one_column_is_a_missing_value(tmp_path):
    assert equal(read_table(write(tmp_path / "t.csv", "a\n1\n\n2\n\n")).frame["a"], [1.0, nan, 2.0])


LABELS = {  # the target, by option or not; its classes
    "large integers": ([str(LARGE), str(LARGE + 1)], (), [str(LARGE), str(LARGE + 1)]),
    "writings of a number": (["1", "+1", "2"], (), ["1", "2"]),
    "codes by option": (["01", "1"], ("t",), ["01", "1"]),
    "spaces": (["yes", "yes ", "no"], (), ["no", "yes"]),
    "missing words by option": (["NA", "None"], ("t",), ["NA", "None"]),
    "quoted missing words": (['"NA"', '"null"'], (), ["NA", "null"]),
}


@pytest.mark.parametrize(("labels", "categorical", "classes"), LABELS.values(), ids=LABELS)
def test_classes(tmp_path, labels, categorical, classes):
    path = write(tmp_path / "t.csv", "b,t\n" + "".join(f"{i},{labels[i % len(labels)]}\n" for i in range(60)))
    loaded = data.load(str(path), target="t", categorical=categorical)
    assert loaded.table.classes == classes
    assert set(np.asarray(loaded.train.y).tolist()) == set(range(len(classes)))


def test_options_that_do_not_fit(tmp_path):
    path = str(write(tmp_path / "t.csv", "b,t\n" + "".join(f"{i},{i}.5\n" for i in range(30))))
    with pytest.raises(ValueError, match=r"unknown categorical column 'bb' \(did you mean 'b'\?\)"):
        data.load(path, target="t", categorical=["bb"])
    with pytest.raises(TypeError, match=r"categorical must be a list, got 'b'; write \['b'\]"):
        data.load(path, target="t", categorical="b")
    with pytest.raises(ValueError, match="the target 't' of a regression cannot be categorical"):
        data.load(path, target="t", task="regression", categorical=["t"])


FRAMES = {  # a column in memory for a column of numbers and for one of the categories 1 and NA; values or messages
    "floats": (np.array([1.0, 2.0]), [1.0, 2.0], "'1.0' is not among"),
    "integers": (np.array([1, 1]), [1.0, 1.0], [1, 1]),
    "strings": (np.array(["1", "NA"]), "1 value is missing, the first in row 1", [1, 0]),
    "bytes": (np.array([b"1", b"1"]), [1.0, 1.0], [1, 1]),
    "None": (np.array(["1", None]), "value is missing", "value is missing"),
    "pandas.NA": (pd.array([1, None], "Int64"), "value is missing", "value is missing"),
    "masked": (np.ma.array([1, 7], mask=[False, True]), "value is missing", "value is missing"),
    "masked without a mask": (np.ma.array([1, 1]), [1.0, 1.0], [1, 1]),
    "big-endian": (np.array([1, 2], ">f8"), [1.0, 2.0], "'1.0' is not among"),
    "long double": (np.array([1, 2], np.longdouble), [1.0, 2.0], "'1.0' is not among"),
    "large integers": (np.array([1, LARGE]), f"{LARGE} in row 1 has more digits", f"'{LARGE}' is not among"),
    "largest uint64": (np.array([1, 2**64 - 1], np.uint64), f"{2**64 - 1} in row 1 has more digits", "is not among"),
    "complex": (np.array([1j, 2]), "must hold numbers or strings, got complex128", "got complex128"),
    "dates": (np.array(["2020-01-01"] * 2, "M8[D]"), r"got datetime64\[us\]", r"got datetime64\[us\]"),
    "two axes": (np.ones((2, 2)), r"got an array of shape \(2, 2\)", r"got an array of shape \(2, 2\)"),
}


@pytest.mark.parametrize(("values", "numbers", "categories"), FRAMES.values(), ids=FRAMES)
def test_frames_in_memory(values, numbers, categories):
    for column, outcome in (
        (Column("c"), numbers),
        (Column("c", "text", ["NA", "1"]), categories),
    ):
        table = Table("regression", "t", [], [column], [0.0] * 2, [1.0] * 2)
        if isinstance(outcome, str):
            with pytest.raises(ValueError, match=outcome):
                table.features({"c": values})
        else:
            encoded, _ = encode({"c": values}, [column])
            assert (encoded[:, 0].tolist() if column.categories is None else encoded.argmax(1).tolist()) == outcome


# Scales


def test_scales_are_those_of_numpy_bit_for_bit():
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1e-3, 1.0, 1e6, 1e30):
        numbers = (rng.normal(size=(500, 7)) + rng.normal(size=7)) * scale
        mean, std = _moments(numbers)
        np.testing.assert_array_equal(mean, numbers.mean(0))
        np.testing.assert_array_equal(std, numbers.std(0))


@pytest.mark.parametrize("scale", [1e300, 1.7e308, 1e200, 1e-200, 1e-300])
def test_features_of_extreme_scales_are_standardised(tmp_path, scale):
    frame = {"x": np.random.default_rng(0).random(60) * scale, "t": np.arange(60) / 3}
    pd.DataFrame(frame).to_csv(tmp_path / "t.csv", index=False)
    x = np.asarray(data.load(str(tmp_path / "t.csv"), target="t").train.x)
    np.testing.assert_allclose(x.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(), 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"column 'x' has the standard deviation .*; predictions are float32"):
        data.load(str(tmp_path / "t.csv"), target="x")


def test_a_range_beyond_float64_is_refused(tmp_path):
    pd.DataFrame({"x": [1.7e308, -1.7e308] * 10, "t": np.arange(20) / 3}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match="line 2 holds a number too large for float32"):
        data.load(str(tmp_path / "t.csv"), target="t")


# Columns of predictions

COLLISIONS = {  # the task, the target, a feature; the columns
    "none": ("regression", "t", "x", ["t", "sd"]),
    "target sd": ("regression", "sd", "x", ["sd", "sd_"]),
    "feature sd": ("regression", "t", "sd", ["t", "sd_"]),
    "both": ("regression", "sd", "sd_", ["sd", "sd__"]),
    "target p(a)": ("classification", "p(a)", "x", ["p(a)", "p(a)_", "p(b)", "epistemic"]),
    "feature p(b)": ("classification", "t", "p(b)", ["t", "p(a)", "p(b)_", "epistemic"]),
    "target epistemic": ("classification", "epistemic", "x", ["epistemic", "p(a)", "p(b)", "epistemic_"]),
}


@pytest.mark.parametrize(("task", "target", "feature", "names"), COLLISIONS.values(), ids=COLLISIONS)
def test_columns_of_predictions_do_not_collide(task, target, feature, names):
    classes = ["a", "b"] if task == "classification" else []
    table = Table(task, target, classes, [Column(feature)], [0.0], [1.0], target_mean=1000.0, target_std=2.0)
    spread = np.array([0.25, 0.5])
    outputs = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32)[:, : len(classes) or 1]
    columns = columns_of(outputs, table, {"sd" if task == "regression" else "epistemic": spread})
    assert list(columns) == names
    assert list(columns[target]) == (["a", "b"] if classes else [1002.0, 998.0])
    np.testing.assert_array_equal(columns[names[-1]], spread)


@pytest.mark.parametrize("first", ["NA", "null", "a"])
def test_a_class_whose_name_means_missing_is_read_back(tmp_path, first):
    table = Table("classification", "t", [first, "b"], [Column("x")], [0.0], [1.0])
    columns = columns_of(np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32), table, {})
    write_predictions(tmp_path / "p.csv", columns, table)
    assert read_table(tmp_path / "p.csv").frame["t"].tolist() == [first, "b"]
    assert ('"' in (tmp_path / "p.csv").read_text(encoding="utf-8")) == (first != "a")


# The output file of predict


def link(kind, path, target):
    (os.link if kind == "hard" else os.symlink)(target, path)
    return path


OUTPUTS = {  # the output as a function of the folder; part of the message, None if it is accepted
    "new file": (lambda d: d / "p.csv", None),
    "new file in the run": (lambda d: d / "run" / "p.csv", None),
    "older predictions": (lambda d: write(d / "run" / PREDICTIONS, "old"), None),
    "older file": (lambda d: write(d / "p.csv", "old"), None),
    "dangling link": (lambda d: link("soft", d / "l", d / "nowhere"), None),
    "input": (lambda d: d / "new.csv", "would overwrite .*new.csv"),
    "input by another way": (lambda d: d / "run" / ".." / "new.csv", "would overwrite .*new.csv"),
    "link to the input": (lambda d: link("soft", d / "l", d / "new.csv"), "would overwrite .*new.csv"),
    "hard link to the input": (lambda d: link("hard", d / "l", d / "new.csv"), "would overwrite .*new.csv"),
    "training data": (lambda d: d / "train.csv", "would overwrite .*train.csv"),
    "weights": (lambda d: d / "run" / "weights.safetensors", "would overwrite .*weights"),
    "link to the weights": (lambda d: link("soft", d / "l", d / "run" / "weights.safetensors"), "would overwrite"),
    "hard link to the weights": (lambda d: link("hard", d / "l", d / "run" / "weights.safetensors"), "would overwrite"),
    "predictions that are the weights": (
        lambda d: link("hard", d / "run" / PREDICTIONS, d / "run" / "weights.safetensors"),
        "would overwrite .*weights",
    ),
    "link to the run": (lambda d: link("soft", d / "l", d / "run") / "config.json", "would overwrite .*config"),
    "checkpoint": (lambda d: d / "run" / "checkpoints" / "step-1", "would overwrite .*step-1"),
    "receipt to come": (lambda d: d / "run" / "receipt.json", "would overwrite .*receipt"),
    "link to the receipt to come": (lambda d: link("soft", d / "l", d / "run" / "receipt.json"), "would overwrite"),
    "folder": (lambda d: d / "run", "is not a regular file"),
    "device": (lambda d: Path("/dev/null"), "is not a regular file"),
    "loop": (lambda d: link("soft", d / "l", d / "l"), None),
    "name of a data set": (lambda d: d / "digits", None),
}


@pytest.mark.parametrize(("output", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_predict_overwrites_no_other_file(tmp_path, output, message):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name in ("new.csv", "train.csv", "run/config.json", "run/weights.safetensors", "run/checkpoints/step-1"):
        write(tmp_path / name, name)
    link("soft", tmp_path / "run" / "loop", tmp_path / "run" / "loop")
    out, inputs = output(tmp_path), (tmp_path / "new.csv", tmp_path / "train.csv", tmp_path / "digits")
    if message is None:
        check_output(out, tmp_path / "run", inputs)
    else:
        with pytest.raises(FileExistsError, match=message):
            check_output(out, tmp_path / "run", inputs)


def test_older_predictions_may_be_the_input_but_are_not_overwritten(tmp_path):
    predictions = write(tmp_path / PREDICTIONS, "c\n1\n")
    with pytest.raises(FileExistsError, match="would overwrite"):
        check_output(predictions, tmp_path, (predictions,))


def test_a_run_stores_the_kinds_and_predict_applies_them(tmp_path):
    countries = ["NA", "DE", "01", "1"]
    rows = [f"{countries[i % 4]},{(37 * i) % 100},{1000 + (i % 4) * 10 + (i % 7)}" for i in range(80)]
    train = write(tmp_path / "train.csv", "\n".join(["country,sd,epistemic", *rows, ""]))
    new = write(tmp_path / "new.csv", "sd,country\n5,01\n5,1\n5,NA\n")
    run, out = tmp_path / "run", tmp_path / "p.csv"
    given = ("--target", "epistemic", "--task", "regression", "--categorical", 'country, "a, b"')
    ended = nnjax("train", train, *given, "--out", run, *SMALL)
    assert_mistake(ended, r"unknown categorical column 'a, b'")
    succeed("train", train, *given[:-1], '"country"', "--members", 2, "--out", run, *SMALL)
    columns = json.loads((run / "table.json").read_text(encoding="utf-8"))["columns"]
    assert [column[:3] for column in columns] == [
        ["country", "category", ["01", "1", "DE", "NA"]],
        ["sd", "number", None],
    ]
    succeed("predict", run, new, "--out", out)
    predicted = pd.read_csv(out)
    assert list(predicted) == ["epistemic", "sd_"]
    assert predicted["epistemic"].between(900, 1100).all()
    assert predicted["epistemic"].nunique() == 3
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for path in (new, train, run / "weights.safetensors"):
        assert_mistake(nnjax("predict", run, new, "--out", path), f"--out {path} would overwrite {path}")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


# Tables that are read back

TABLE = Table("classification", "t", ["a", "b"], [Column("x"), Column("c", "text", ["u", "v"])], [0.0] * 3, [1.0] * 3)
WRONG = {
    "mean too short": ({"mean": [0.0]}, "mean: expected 3 numbers, got 1"),
    "std too long": ({"std": [1.0] * 4}, "std: expected 3 numbers, got 4"),
    "mean not finite": ({"mean": [0.0, math.inf, 0.0]}, "mean: expected finite numbers"),
    "std zero": ({"std": [1.0, 0.0, 1.0]}, "std: expected finite numbers > 0"),
    "std NaN": ({"std": [1.0, nan, 1.0]}, "std: expected finite numbers > 0"),
    "std of the target negative": ({"target_std": -1.0}, "std: expected finite numbers > 0"),
    "mean of the target": ({"target_mean": nan}, "mean: expected finite numbers"),
    "one class": ({"classes": ["a"]}, "classes: got 1 for a classification"),
    "classes of a regression": ({"task": "regression"}, "classes: got 2 for a regression"),
    "equal classes": ({"classes": ["a", "a"]}, "classes: two entries are equal"),
    "equal numbers": ({"classes": ["1", "1.0"], "target_kind": "number"}, "classes: two entries are equal"),
    "no columns": ({"columns": [], "mean": [], "std": []}, "columns: expected at least 1, got 0"),
    "equal columns": ({"columns": [Column("x"), Column("c", "text", ["u"]), Column("x")]}, "columns: two entries"),
    "target among the columns": ({"target": "x"}, "columns: two entries are equal"),
    "equal categories": ({"columns": [Column("x"), Column("c", "text", ["u", "u"])]}, "categories of 'c': two entries"),
    "numbers with categories": (
        {"columns": [Column("x", "number", ["u", "v", "w"])]},
        "only numbers and dates have no categories",
    ),
    "strings without categories": (
        {"columns": [*"xyz"] and [Column(c, "text") for c in "xyz"]},
        "only numbers and dates have no",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_tables_whose_parts_do_not_fit(change, message):
    assert check_table(TABLE) == TABLE
    with pytest.raises(ValueError, match=message):
        check_table(TABLE._replace(**change))
