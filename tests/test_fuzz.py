"""The fuzzer accepts what is right, and finds what is wrong."""

import sys
import time

import fuzz
import pytest

from nnjax import checks, data


def run(monkeypatch, capsys, *arguments):
    """Return the exit code and the output."""
    monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])
    return fuzz.main(), capsys.readouterr().out


@pytest.mark.parametrize("name", fuzz.CALLS)
def test_the_calls_without_junk_are_right(name):
    function, arguments = fuzz.CALLS[name]
    function(**arguments)


def test_some_damage_is_noticed_and_some_is_valid(monkeypatch, capsys):
    code, out = run(monkeypatch, capsys, "--cases", "40", "--kind", "checkpoint", "--kind", "csv")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert [row[:2] for row in rows] == [["checkpoint", "40"], ["csv", "40"]]
    assert all(int(row[2]) > 0 for row in rows)
    assert int(rows[1][3]) > 0


def test_seeds_are_drawn_unless_one_is_set(monkeypatch, capsys):
    first, second = (run(monkeypatch, capsys, "--cases", "0")[1].splitlines()[0] for _ in range(2))
    assert first != second
    assert run(monkeypatch, capsys, "--cases", "0", "--seed", "7")[1].startswith("seed 7\n")


def test_a_result_that_silently_differs_is_found(monkeypatch, capsys):
    """Without checksums."""
    monkeypatch.setattr("nnjax.storage.tensor_file.leaf_sha256", lambda array, dtype: "0" * 64)
    code, out = run(monkeypatch, capsys, "--cases", "60", "--kind", "checkpoint")
    assert code == 1
    assert "WrongError" in out
    seed = out.partition("--seed ")[2].split()[0]
    code, again = run(monkeypatch, capsys, "--cases", "1", "--kind", "checkpoint", "--seed", seed)
    assert code == 1
    assert again.splitlines()[1] in out


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("not nnjax's words"), AssertionError()])
def test_errors_of_other_code_are_found(error, monkeypatch, capsys):
    def read(*arguments, **options):
        raise error

    monkeypatch.setattr(data, "load", read)
    code, out = run(monkeypatch, capsys, "--cases", "2", "--kind", "csv")
    assert code == 1
    assert out.count(type(error).__name__) == 2


@pytest.mark.parametrize(("interval", "ours"), [("[0, 1)", True), ("[a, b)", False)])
def test_a_value_error_of_python_in_a_line_of_nnjax_is_no_message(interval, ours):
    with pytest.raises(ValueError, match=r"must be|not convert") as caught:
        checks.in_range("f", "x", 2.0, interval)
    assert fuzz.raised_by_nnjax(caught.value) == ours


def test_a_hang_is_found(monkeypatch, capsys):
    monkeypatch.setattr(data, "load", lambda *arguments, **options: time.sleep(30))
    code, out = run(monkeypatch, capsys, "--cases", "1", "--kind", "csv", "--limit", "1")
    assert code == 1
    assert "no end after 1 s" in out
