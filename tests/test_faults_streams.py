"""Output that is closed, full or in another encoding: the run goes on to its end, with less output or other letters."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import SMALL, read_json, succeed

import nnjax
from nnjax.cli import console, output

PACKAGE = Path(nnjax.__file__).parent
COMMAND = [sys.executable, "-m", "nnjax.cli"]
TRAIN = ("train", "digits", *map(str, SMALL), "--out")

STREAMS = {  # redirections in the shell: (end of standard output, text that standard error must have)
    "2>&-": ("written to", ""),
    ">&-": ("", "epoch 2/2"),
    ">&- 2>&- <&-": ("", ""),
    ">/dev/full": ("", "epoch 2/2"),
    ">/dev/full 2>&1": ("", ""),
    "2>&1 | head -n 1": ("nnjax", ""),
}
ENCODINGS = {  # environment: first words of the output
    ("PYTHONIOENCODING", "ascii"): "nnjax {version} on 1 x cpu",
    ("PYTHONIOENCODING", "ascii:strict"): "nnjax {version} on 1 x cpu",
    ("PYTHONIOENCODING", "latin-1"): "nnjax {version} on 1 × cpu",
    ("LC_ALL", "C"): "nnjax {version} on 1 x cpu",
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "run"
    succeed(*TRAIN, path)
    return path


def shell(text, folder, **environment):
    """Run a line of bash; the exit code is that of the first command of a pipe."""
    return subprocess.run(
        ["bash", "-c", f"{text}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "PYTHONWARNINGS": "default"} | environment,
    )


# Runs several commands, separated by ";", in one process
COMMANDS = """
import itertools, sys
from nnjax import cli
for end, command in itertools.groupby(sys.argv[1:], lambda argument: argument == ";"):
    if not end:
        sys.argv = ["nnjax", *command]
        try:
            cli.main()
        except SystemExit as error:
            if error.code:
                raise
"""


def line(*arguments):
    return " ".join(f"'{part}'" for part in (*COMMAND, *arguments))


@pytest.mark.parametrize("redirection", STREAMS)
def test_a_run_without_its_output_is_trained_to_the_end(reference, tmp_path, redirection):
    out, err = STREAMS[redirection]
    ended = shell(f"{line(*TRAIN, 'run')} {redirection}", tmp_path)
    assert ended.returncode == 0, ended
    assert out in ended.stdout.decode()
    assert err in ended.stderr.decode()
    assert b"Traceback" not in ended.stdout + ended.stderr
    assert b"Exception ignored" not in ended.stdout + ended.stderr
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == (reference / "weights.safetensors").read_bytes()
    assert read_json(tmp_path / "run" / "receipt.json")["test"] == read_json(reference / "receipt.json")["test"]


@pytest.mark.parametrize(("name", "value"), ENCODINGS)
def test_letters_that_an_encoding_lacks_are_replaced_and_files_stay_utf_8(tmp_path, name, value):
    rows = "\n".join(f"{i % 2},{i / 7:.3f},{'grün' if i % 3 else 'weiß'}" for i in range(40))
    (tmp_path / "µ.csv").write_text(f"art,größe,farbe\n{rows}\n", encoding="utf-8")
    environment = {name: value, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    given = ("train", "µ.csv", "--target", "art", *map(str, SMALL), "--out", "run µ")
    commands = (sys.executable, "-c", COMMANDS, *given, ";", "predict", "run µ", "µ.csv", ";", "verify", "run µ")
    ended = shell(" ".join(f"'{part}'" for part in commands), tmp_path, **environment)
    assert ended.returncode == 0, ended
    encoding = "latin-1" if value == "latin-1" else "ascii"
    assert ended.stdout.decode(encoding).startswith(ENCODINGS[name, value].format(version=nnjax.__version__))
    assert "Traceback" not in ended.stderr.decode(encoding)
    assert "verified run" in ended.stdout.decode(encoding)
    assert "weiß" in (tmp_path / "run µ" / "table.json").read_text(encoding="utf-8")
    assert (tmp_path / "run µ" / "predictions.csv").exists()


LETTERS = {"×": "x", "R² ± µ": "R2 +- u", "… ≥ →": "... >= ->", "é": "e", "日": "?", "\udcff": "?", "╭": "?"}


@pytest.mark.parametrize("text", LETTERS)
def test_similar_letters(text):
    file = io.BytesIO()
    with output.tolerant_output():
        stream = io.TextIOWrapper(file, encoding="ascii", errors=output.TRANSLITERATE)
        stream.write(text)
        stream.flush()
    assert file.getvalue().decode("ascii") == LETTERS[text]


class Broken(io.RawIOBase):
    """A stream whose reader is gone, or which is closed."""

    def __init__(self, error):
        self.error = error

    def writable(self):
        return True

    def fileno(self):
        return 1

    def isatty(self):
        raise self.error

    def write(self, data):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("closed")])
def test_a_stream_that_fails_drops_what_is_written(monkeypatch, error):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(Broken(error), encoding="utf-8"))
    with output.tolerant_output():
        console.say("[bold]×[/]")
        console.complain("text")
        print("text", flush=True)
        assert not sys.stderr.isatty()


def test_lines_to_a_pipe_are_written_as_they_come(monkeypatch):
    read, write = os.pipe()
    with os.fdopen(read) as reader, os.fdopen(write, "w", buffering=100) as writer:
        monkeypatch.setattr(sys, "stderr", writer)
        os.set_blocking(read, False)
        with output.tolerant_output():
            print("epoch 1/10", file=sys.stderr)
            assert reader.readline() == "epoch 1/10\n"


def test_streams_that_are_no_files_stay(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with output.tolerant_output():
        assert sys.stdout is stream
        print("×")
    assert stream.getvalue() == "×\n"


def opens_text(node):
    """Return True for a call that opens a text file without an encoding."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name not in ("open", "read_text", "write_text") or any(word.arg == "encoding" for word in node.keywords):
        return False
    modes = [a.value for a in [*node.args, *(w.value for w in node.keywords)] if isinstance(a, ast.Constant)]
    binary = any(isinstance(mode, str) and "b" in mode and len(mode) <= 3 for mode in modes)
    module = getattr(getattr(node.func, "value", None), "id", "")
    return name != "open" or not (binary or module in ("os", "gzip", "archive"))


def test_every_text_file_is_opened_with_an_encoding():
    assert opens_text(ast.parse("path.open()").body[0].value)
    assert not opens_text(ast.parse("path.open('rb')").body[0].value)
    found = [
        f"{path}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_text(node)
    ]
    assert not found
