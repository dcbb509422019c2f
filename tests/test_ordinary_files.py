"""Tables as people have them: separators, decimal commas, dates, currencies, gaps, several targets, DataFrames."""

import gzip
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
from runs import SMALL, assert_mistake, nnjax, succeed, with_warnings

from nnjax import data
from nnjax.data._dates import encode_dates
from nnjax.data._read_table import read_new_rows, read_table
from nnjax.data.table import Column, Table

N = 40
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=N).round(3), RNG.permutation(N) * 1000
LABELS = np.where(A > 0, "yes", "no")


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def rows(*columns, separator=","):
    return "".join(separator.join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


# Separators, encodings and headers

PLAIN = pd.DataFrame({"größe": A, "b": B, "t": LABELS})
FILES = {  # the name of the file, and its bytes
    "comma": ("t.csv", PLAIN.to_csv(index=False).encode()),
    "German": ("t.csv", PLAIN.to_csv(index=False, sep=";", decimal=",").encode("utf-8-sig")),
    "tab": ("t.tsv", PLAIN.to_csv(index=False, sep="\t").encode()),
    "bar": ("t.csv", PLAIN.to_csv(index=False, sep="|").encode()),
    "compressed": ("t.csv.gz", gzip.compress(PLAIN.to_csv(index=False).encode())),
    "Unicode text of Excel": ("t.csv", PLAIN.to_csv(index=False, sep="\t").encode("utf-16")),
    "Excel with the separator": ("t.csv", b"sep=;\r\n" + PLAIN.to_csv(index=False, sep=";", decimal=",").encode()),
    "spaces": ("t.csv", PLAIN.to_csv(index=False, sep=" ").encode()),
    "aligned with spaces": ("t.csv", (PLAIN.to_string(index=False) + "\n").encode()),
    "commas in strings": ("t.csv", PLAIN.assign(t='"a, b"').to_csv(index=False, sep=";").encode()),
}


@pytest.mark.parametrize(("name", "content"), FILES.values(), ids=FILES)
def test_separator_decimal_sign_and_encoding_are_detected(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    read = read_table(tmp_path / name).frame
    assert list(read) == ["größe", "b", "t"]
    np.testing.assert_array_equal(read["größe"], A)
    np.testing.assert_array_equal(read["b"], B)


def test_parquet_through_pandas(tmp_path, monkeypatch):
    frame = PLAIN.assign(day=pd.date_range("2020-01-01", periods=N))
    frame.to_parquet(tmp_path / "t.parquet")
    loaded = data.load(tmp_path / "t.parquet", target="t")
    assert loaded.table.columns[2] == Column("day", "date", date="%Y-%m-%d")
    assert loaded.train.x.shape[1] == 2 + 5
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"t\.parquet needs pandas and pyarrow: pip install 'nnjax\[tables\]'"
    ):
        data.load(tmp_path / "t.parquet", target="t")


def test_windows_1252_is_read_with_a_warning(tmp_path):
    path = write(tmp_path / "t.csv", "größe,t\n1,ä\n2,ö\n", "cp1252")
    with pytest.warns(UserWarning, match=r"t\.csv is not UTF-8 and is read as Windows-1252"):
        assert read_table(path).frame["t"].tolist() == ["ä", "ö"]


@pytest.mark.parametrize(
    ("header", "missing"),
    [("5.1,3.5,0.2", True), ("7,a,3", True), ("2019,2020,2021", False), ("400.5,401.0,t", False), ("a,b,3", False)],
)
def test_a_missing_header_is_named(tmp_path, header, missing):
    path = write(tmp_path / "t.csv", f"{header}\n1,2,3\n")
    if missing:
        with pytest.raises(ValueError, match=r"has no header: its first line holds numbers, .*; add a line with the 3"):
            read_table(path)
    else:
        assert list(read_table(path).frame) == header.split(",")


def test_lines_count_blank_lines_and_lines_in_quotes(tmp_path):
    path = write(tmp_path / "t.csv", 'a,b\n1,"x\ny"\n\n2,z\n')
    assert read_table(path).lines.tolist() == [2, 5]


# Numbers and dates

COLUMNS = {  # the fields of a column in a file with this separator; its values, decimal separator and unit
    "thousands": (["4,082", "12,000,000", "1"], ";", [4082, 12_000_000, 1], ".", ""),
    "currency": (["$12,000", "$ 3.50", "-$1"], ";", [12000, 3.5, -1], ".", "$"),
    "percent": (["12 %", "3.5%"], ",", [12, 3.5], ".", "%"),
    "decimal comma": (["1,5", "-2", "3,25"], ";", [1.5, -2, 3.25], ",", ""),
    "German thousands": (["1.234,5", "1.000", "0,5"], ";", [1234.5, 1000, 0.5], ",", ""),
    "Swiss thousands": (["1'234.5", "2"], ";", [1234.5, 2], ".", ""),
    "French thousands": (["1\u202f234,5", "2,5"], ";", [1234.5, 2.5], ",", ""),
    "exponents": (["1,5e3", "2,25"], ";", [1500, 2.25], ",", ""),
}


@pytest.mark.parametrize(("fields", "separator", "values", "decimal", "unit"), COLUMNS.values(), ids=COLUMNS)
def test_numbers_as_people_write_them(tmp_path, fields, separator, values, decimal, unit):
    raw = read_table(
        write(tmp_path / "t.csv", f"c{separator}t\n" + rows(fields, ["a"] * len(fields), separator=separator))
    )
    np.testing.assert_array_equal(raw.frame["c"], values)
    assert raw.columns["c"] == Column("c", decimal=decimal, unit=unit)


@pytest.mark.parametrize("fields", [["$1", "€2"], ["1,23,456", "1,5"], ["12-3", "4"], ["1.2.3", "1.2"]])
def test_other_writings_stay_texts(tmp_path, fields):
    assert (
        read_table(write(tmp_path / "t.csv", "c;t\n" + rows(fields, "ab", separator=";"))).columns["c"].kind == "text"
    )


@pytest.mark.parametrize(
    ("separator", "decimal", "value"), [(",", None, 4082), (";", None, 4.082), (";", ".", 4082), (",", ",", 4.082)]
)
def test_a_number_that_fits_both_decimal_signs_is_warned_of(tmp_path, separator, decimal, value):
    path = write(tmp_path / "t.csv", f"c{separator}t\n" + rows(['"4,082"', "7"], "ab", separator=separator))
    if decimal is None:
        with pytest.warns(UserWarning, match=f"column 'c': '4,082' is read as {value:g}; with the decimal separator"):
            assert read_table(path).frame["c"][0] == value
    else:
        assert read_table(path, decimal=decimal).frame["c"][0] == value


def test_other_columns_decide_the_decimal_sign(tmp_path):
    assert read_table(write(tmp_path / "t.csv", "c;d\n4,082;0,5\n")).frame["c"].tolist() == [4.082]


def test_numbers_with_a_point_between_commas_are_clear(tmp_path):
    assert read_table(write(tmp_path / "t.csv", "c,d\n23.110,24.200\n")).frame["c"].tolist() == [23.11]
    with pytest.warns(UserWarning, match="'23.110' is read as 23110; .*; 1 more columns are ambiguous, too"):
        read_table(write(tmp_path / "t.csv", "c;d\n23.110;24.200\n"))


SIGNS = {  # decimal separator in training, --decimal, a new file; its numbers, or the message
    "stored": (",", None, '"1,5","7"', [1.5, 7.0]),
    "contrary": (".", None, '"1,5","7"', "decimal separator '.', as in training, got '1,5' in line 2"),
    "contrary comma": (",", None, "1.5,7", "decimal separator ',', as in training, got '1.5' in line 2"),
    "named": (".", ",", '"1,500","7"', [1.5, 7.0]),
    "confirmed": (".", None, '"1,500",0.5', [1500.0, 0.5]),
    "unclear": (
        ".",
        None,
        '"1,500",7',
        "'1,500' is read as 1500, as in training; with the decimal separator ',' it would be 1.5",
    ),
    "no number": (".", None, "x,7", "column 'a' must hold numbers, got 'x' in line 2"),
}


@pytest.mark.parametrize(("stored", "decimal", "row", "expected"), SIGNS.values(), ids=SIGNS)
def test_the_decimal_sign_is_that_of_training(tmp_path, stored, decimal, row, expected):
    columns = [Column("a", decimal=stored), Column("b", decimal=stored)]
    table = Table("regression", "t", [], columns, mean=[0.0, 0.0], std=[1.0, 1.0])
    path = write(tmp_path / "new.csv", f"a,b\n{row}\n")
    if isinstance(expected, list):
        frame = read_new_rows(path, table, decimal=decimal).frame
        assert [frame["a"][0], frame["b"][0]] == expected
    elif "is read as" in expected:
        with pytest.warns(UserWarning, match=re.escape(expected)):
            read_new_rows(path, table)
    else:
        with pytest.raises(ValueError, match=re.escape(expected)):
            read_new_rows(path, table, decimal=decimal)


def test_targets_have_the_decimal_sign_of_training(tmp_path):
    frame = pd.DataFrame({"c": np.resize(["u", "v", "w"], N), "t": A})  # no feature shows the sign
    frame.to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",")
    table = data.load(tmp_path / "t.csv", target="t").table
    assert table.target_decimal == ","
    np.testing.assert_allclose(read_new_rows(tmp_path / "t.csv", table).frame["t"], A)


DATES = {  # fields of a column; the first date and the format
    "ISO": (["2020-01-31", "2021-12-01"], "2020-01-31", "%Y-%m-%d"),
    "German": (["31.01.2020", "01.12.2021"], "2020-01-31", "%d.%m.%Y"),
    "US": (["01/31/2020", "12/01/2021"], "2020-01-31", "%m/%d/%Y"),
    "day first": (["31/01/2020", "01/12/2021"], "2020-01-31", "%d/%m/%Y"),
    "first of months": (["01/02/2020", "01/03/2021"], "2020-02-01", "%d/%m/%Y"),
    "first of months, US": (["02/01/2020", "03/01/2021"], "2020-02-01", "%m/%d/%Y"),
    "words": (["31 Jan 2020", "1 Dec 2021"], "2020-01-31", "%d %b %Y"),
    "words, US": (["Jan 31 2020", "Dec 1 2021"], "2020-01-31", "%b %d %Y"),
    "months": (["Jan 2020", "Dec 2021"], "2020-01-01", "%b %Y"),
    "times": (["2020-01-31 18:30", "2021-12-01 00:00"], "2020-01-31T18:30", "%Y-%m-%d %H:%M"),
    "zones": (["2020-01-31T18:30:00+02:00", ""], "2020-01-31T16:30", "%Y-%m-%dT%H:%M:%S%z"),
}


@pytest.mark.parametrize(("fields", "first", "form"), DATES.values(), ids=DATES)
def test_dates_are_recognised(tmp_path, fields, first, form):
    raw = read_table(write(tmp_path / "t.csv", "c,t\n" + rows(fields, "ab")))
    assert raw.columns["c"] == Column("c", "date", date=form)
    assert raw.frame["c"][0] == np.datetime64(first)
    assert read_table(tmp_path / "t.csv", kinds={"c": "category"}).columns["c"].kind == "category"


def test_dates_that_can_be_read_in_two_ways_are_warned_of(tmp_path):
    path = write(tmp_path / "t.csv", "c,t\n" + rows(["01/02/2020", "03/04/2020"], "ab"))
    with pytest.warns(UserWarning, match=r"could be %d/%m/%Y or %m/%d/%Y \('01/02/2020' in line 2\) and are read as"):
        read_table(path)


def test_numbers_of_dates():
    days = np.array(["2020-12-31T18:00", "2021-01-01T18:00", "NaT"], "M8[us]")
    december, january, missing = encode_dates(days, "%Y-%m-%d %H:%M")
    assert january[0] - december[0] == 1
    np.testing.assert_allclose(december[1:3], january[1:3], atol=0.02)  # sine and cosine of the year
    np.testing.assert_allclose(december[5:], [-1, 0], atol=1e-6)  # 18:00 is three quarters of a day
    monday = encode_dates(np.array(["2024-01-01"], "M8[us]"), "%Y-%m-%d")[0]
    np.testing.assert_allclose(monday[3:], [0, 1], atol=1e-6)
    assert np.isnan(missing).all()


# Problems and gaps


def test_all_problems_are_in_one_table(tmp_path):
    age = ["" if i == 3 else i % 7 for i in range(N)]
    power = ["?" if i == 5 else i % 37 / 10 for i in range(N)]
    power = power + [str(i / 10) for i in range(37, 37 + 200)]
    n = len(power)
    columns = [np.resize(age, n), power, [f"name {i}" for i in range(n)], np.resize(LABELS, n)]
    path = write(tmp_path / "t.csv", "age,power,name,t\n" + rows(*columns))
    ended = nnjax("train", path, "--target", "t", "--out", tmp_path / "run")
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert lines[0] == "error 3 columns cannot be used:"
    assert lines[1] == "  age    6 values are missing, the first in line 5"
    assert lines[2] == "  power  239 of 240 values are numbers, but '?' in line 7 is not".replace(
        "239 of 240", f"{n - 1} of {n}"
    )
    assert lines[3] == f"  name   {n} distinct strings in {n} rows, for example 'name 0' in line 2"
    assert "--na '?'" in ended.err
    assert "--drop age,power,name" in ended.err
    with pytest.raises(data.TableError, match=r"drop=\['age', 'power', 'name'\]") as caught:
        data.load(path, target="t")
    assert [problem.column for problem in caught.value.problems] == ["age", "power", "name"]


GAPS = pd.DataFrame({"a": A, "c": np.resize(["u", "v", "w"], N).astype(object), "t": LABELS})
GAPS.loc[[3, 4], "a"], GAPS.loc[[4, 7], "c"] = np.nan, None


def test_rules_for_missing_values(tmp_path):
    GAPS.to_csv(tmp_path / "t.csv", index=False)
    loaded = {rule: data.load(tmp_path / "t.csv", target="t", missing=rule) for rule in ("drop", "mean", "median")}
    assert len(loaded["drop"].train.x) + len(loaded["drop"].test.x) == N - 3
    assert loaded["drop"].notes == (f"left out: 3 of {N} rows, which have a missing value",)
    assert loaded["median"].notes == (
        "missing values filled with the median: a (2)",
        "missing values filled with the average of all categories: c (2)",
    )
    known = GAPS["a"][loaded["mean"].rows].dropna()
    assert loaded["mean"].table.fill[0] == pytest.approx(known.mean())
    assert loaded["median"].table.fill[0] == pytest.approx(known.median())
    table = loaded["median"].table
    x = table.features(GAPS)
    np.testing.assert_allclose(x[3, 0] * table.std[0] + table.mean[0], known.median(), rtol=1e-5)
    np.testing.assert_allclose(x[7, 1:], 0, atol=0.2)  # the average of the categories
    loaded = data.load(tmp_path / "t.csv", target="t", missing="category")
    assert loaded.notes == ("missing strings are a category: c", "missing values filled with the median: a (2)")
    own = loaded.table
    assert own.columns[1].categories == ["", "u", "v", "w"]
    assert (own.features(GAPS)[[4, 7]][:, 1] > 1).all()
    with pytest.raises(ValueError, match="2 columns cannot be used"):
        data.load(tmp_path / "t.csv", target="t")
    with pytest.raises(ValueError, match="unknown rule for missing values 'men'"):
        data.load(tmp_path / "t.csv", target="t", missing="men")


def test_rows_without_a_target_are_left_out(tmp_path):
    PLAIN.assign(t=[None, *LABELS[1:]]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match="column 't': 1 value is missing, the first in line 2"):
        data.load(tmp_path / "t.csv", target="t")
    loaded = data.load(tmp_path / "t.csv", target="t", missing="mean")
    assert loaded.notes == (f"left out: 1 of {N} rows, which have no target",)
    assert 0 not in loaded.rows
    assert max(loaded.rows) > N - 10


def test_a_class_of_one_row_is_noted(tmp_path):
    path = write(tmp_path / "t.csv", "a,t\n" + rows(A, ["once", *LABELS[1:]]))
    note = "no test row has these classes, so their recall is unknown: 'once' (1 row)"
    assert data.load(path, target="t").notes == (note,)
    assert data.load(write(tmp_path / "t.csv", "a,t\n" + rows(A, LABELS)), target="t").notes == ()


def test_declared_missing_texts_and_rare_texts(tmp_path):
    words = [f"w{i}" for i in range(110)] + ["often", "?"] * 5
    n = len(words)
    path = write(tmp_path / "t.csv", "c,a,t\n" + rows(words, np.resize(A, n), np.resize(LABELS, n)))
    with pytest.raises(
        ValueError, match=r"112 distinct strings in 120 rows.*categorical=.* keeps the 100 most frequent"
    ):
        data.load(path, target="t")
    loaded = data.load(path, target="t", categorical=["c"], na=["?"], missing="category")
    column = loaded.table.columns[0]
    assert len(column.categories) == 101
    assert column.rare
    assert {"", "often"} <= set(column.categories)
    assert "?" not in column.categories
    assert loaded.table.gaps({"c": np.array(["new"], object), "a": np.ones(1)}) == []


def test_numbers_with_a_word_for_missing_among_them_are_warned_of(tmp_path):
    power = [str(i % 15) for i in range(N - 1)] + ["?"]
    path = write(tmp_path / "t.csv", "power,a,t\n" + rows(power, A, LABELS))
    with pytest.warns(UserWarning, match=r"column 'power' is read as text: 39 of 40 .* '\?' in line 41 .* --na '\?'"):
        assert len(data.load(path, target="t").table.columns[0].categories) == 16
    path = write(tmp_path / "t.csv", "power,a,t\n" + rows(["n/a", *power[1:]], A, LABELS))
    text = r"1 value is missing, the first in line 2; 38 of 39 values are numbers, but '\?' in line 41 is not; missing="
    with pytest.raises(data.TableError, match=text) as caught:
        data.load(path, target="t")
    assert "na=['?'] declares" in str(caught.value)
    assert "categorical" not in str(caught.value)
    declared = data.load(path, target="t", na=["?"], missing="mean").table
    assert declared.columns[0].kind == "number"


# Several targets and DataFrames


def test_several_targets(tmp_path):
    targets = pd.DataFrame({"y": 3 * A + 100, "z": -A, "more": B})
    targets.to_csv(tmp_path / "t.csv", index=False)
    loaded = data.load(tmp_path / "t.csv", target=["y", "z"])
    assert loaded.train.y.shape == (32, 2)
    assert [target.name for target in loaded.table.several] == ["y", "z"]
    np.testing.assert_allclose(
        loaded.table.in_units(np.asarray(loaded.train.y)), targets[["y", "z"]].iloc[loaded.rows], rtol=1e-4
    )
    for target, message in (("y,y", "name each target once"), (["y", "x"], "unknown target column 'x'")):
        with pytest.raises(ValueError, match=message):
            data.load(tmp_path / "t.csv", target=target)
    with pytest.raises(ValueError, match="a classifier must have one target"):
        data.load(tmp_path / "t.csv", target=["y", "z"], task="classification")


def test_a_frame_is_loaded_as_its_file(tmp_path):
    PLAIN.to_csv(tmp_path / "t.csv", index=False)
    of_file, of_frame = (data.load(source, target="t") for source in (tmp_path / "t.csv", PLAIN))
    np.testing.assert_array_equal(of_file.train.x, of_frame.train.x)
    np.testing.assert_array_equal(of_file.test.y, of_frame.test.y)
    of_dict = data.load({"a": A, "t": LABELS}, target="t")
    assert of_dict.train.x.shape == (32, 1)
    with pytest.raises(ValueError, match="column 'a': 1 value is missing, the first in row 1"):
        data.load(PLAIN.assign(a=[1, np.nan, *A[2:]]), target="t")
    with pytest.raises(TypeError, match="the path of a file or a DataFrame, got 3"):
        data.load(3)


# Predictions


def test_predict_reports_what_is_unknown_and_scores_what_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"id": np.arange(N) + 7, "c": np.resize(["u", "v"], N), "a": A, "y": 5 * A, "z": A + 1})
    frame.to_csv("t.csv", index=False, sep=";", decimal=",")
    given = ("--target", "y,z", "--drop", "id", "--members", 2, "--out", "run", *SMALL)
    ended = succeed("train", "t.csv", *given)
    assert "y: R² " in ended.out
    assert "R² of z" in (tmp_path / "run" / "report.html").read_text()
    table = json.loads((tmp_path / "run" / "table.json").read_text())
    assert [target[0] for target in table["several"]] == ["y", "z"]
    frame.loc[[3, 5], "c"], frame.loc[3, "a"] = "x", np.nan
    frame.to_csv("new.csv", index=False)  # now with points and commas
    refusal = (
        r"column 'a' must hold numbers with the decimal separator ',', as in training, got '.*' in line 2; .*--decimal"
    )
    assert_mistake(nnjax("predict", "run", "new.csv"), refusal)
    ended = with_warnings("predict", "run", "new.csv", "--keep", "id,y", "--decimal", ".")
    assert ended.code == 0, ended
    assert "warning 2 of 40 rows have missing or unknown values, which are filled with averages" in ended.err
    assert "column 'c': 'x' is not among the categories in training, u, v (line 5, 2 such rows in all)" in ended.err
    assert "y: R² " in ended.out
    written = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert list(written) == ["id", "y", "y_predicted", "z", "sd(y)", "sd(z)"]
    np.testing.assert_array_equal(written["id"], frame["id"])
    np.testing.assert_allclose(written["y"], frame["y"])
    ended = nnjax("predict", "run", "new.csv", "--strict", "--decimal", ".")
    assert ended.code == 2
    assert "error 2 columns cannot be used:\n  c  'x' is not among" in ended.err
    assert_mistake(nnjax("predict", "run", "new.csv", "--keep", "idd"), r"unknown column to keep 'idd' \(did you mean")
    succeed("verify", "run")
