"""The command line as a function, and the small run that several test files share."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from typing import NamedTuple

import jax
import numpy as np
import pytest
from sklearn.datasets import load_wine

from nnjax import cli
from nnjax.cli import run_folder
from nnjax.storage.atomic_write import write_json
from nnjax.storage.json_file import json_digest

# A constant rate and these sizes, so that runs of all lengths and in all test files compile to the same program
SMALL = ("--width", 8, "--depth", 1, "--epochs", 2, "--batch-size", 16, "--schedule", "constant", "--no-plots")


class Exit(NamedTuple):
    code: int
    out: str
    err: str


def nnjax(*arguments):
    """Run the command in this process, where JAX has already started, on as many devices as it has."""
    jax.devices()
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nnjax", *map(str, arguments)])
        patch.setattr(warnings, "showwarning", warnings.showwarning)  # main sets it
        try:
            with jax.numpy_dtype_promotion("standard"):  # optax's schedules promote
                cli.main()
        except SystemExit as end:
            code = end.code or 0
    return Exit(code, out.getvalue(), err.getvalue())


def succeed(*arguments):
    """Run the command and check that it succeeds."""
    exit = nnjax(*arguments)
    assert exit.code == 0, exit
    return exit


def with_warnings(*arguments):
    """Run the command and let its warnings pass."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        return nnjax(*arguments)


def process(*arguments, **environment):
    """Run the command in its own process."""
    command = [sys.executable, "-m", "nnjax.cli", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    return Exit(ended.returncode, ended.stdout, ended.stderr)


def assert_mistake(exit, message):
    """Check for exit code 2 and one line, or two if a note says where, without a traceback."""
    assert exit.code == 2, exit
    assert "Traceback" not in exit.out + exit.err
    assert re.match(f"error .*{message}", exit.err), exit.err
    assert exit.err.count("\n") <= 2


def read_json(path):
    """Return the content of a JSON file; NaN, which JSON does not have, fails the test."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in {path}"))


def change_json(path, **values):
    """Change values in a JSON file of a run folder; a receipt gets the checksum of its new content."""
    content = read_json(path) | values
    if path.name == run_folder.RECEIPT:
        content["sha256"] = json_digest({name: value for name, value in content.items() if name != "sha256"})
    write_json(path, content)


def write_wine(path):
    """Write a table as people have them: text labels, a category, booleans, a name with brackets."""
    bunch = load_wine(as_frame=True)
    wine = bunch.data[["alcohol", "hue", "proline"]].rename(columns={"alcohol": "alcohol [%]"})
    wine["region"] = np.where(wine["hue"] > 1, "north", "south")
    wine["organic"] = bunch.data["ash"] > 2.3
    wine.insert(0, "cultivar", [f"class {bunch.target_names[i][-1]}" for i in bunch.target])
    wine.to_csv(path, index=False)
    return path


def assert_same_run(path, reference):
    """Check that two finished runs have the same bits."""
    for name in ("weights.safetensors", "metrics.csv"):
        assert (path / name).read_bytes() == (reference / name).read_bytes(), name
    assert read_json(path / "result.json")["test"] == read_json(reference / "result.json")["test"]
    receipts = [read_json(folder / "receipt.json") for folder in (path, reference)]
    for receipt in receipts:
        for name in ("result.json", "report.html"):  # which hold the seconds
            del receipt["files"][name]
        del receipt["sha256"]
    assert receipts[0] == receipts[1]
