"""`nnjax optcheck`: its output, its files and its five exit codes."""

import json
import sys

import jax
import optax
import pytest
from runs import nnjax, process

from nnjax import optim

MINE = """
import jax, jax.numpy as jnp, optax

def momentum(learning_rate, momentum=0.9, nesterov=False):
    return optax.sgd(learning_rate, momentum, nesterov)

def pair(formula):
    init = lambda params: jax.tree.map(jnp.zeros_like, params)
    def update(grads, b, params=None):
        b = jax.tree.map(lambda g, b: 0.9 * b + g, grads, b)
        return jax.tree.map(formula, grads, b), b
    return init, update

averaged = pair(lambda g, b: -1e-3 * (0.1 * b))
cubic = pair(lambda g, b: -1e-3 * jnp.cbrt(b))

class Frozen:
    def __init__(self):
        self.b = None
    def update(self, grads, params):
        self.b = grads if self.b is None else jax.tree.map(lambda g, b: 0.9 * b + g, grads, self.b)
        return jax.tree.map(lambda b: -1e-3 * b, self.b)

class Broken:
    def step(self, params, grads):
        raise RuntimeError("my own mistake")

frozen, broken, number = Frozen(), Broken(), 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_of_the_test.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])  # to which the command adds
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield "mine_of_the_test.py"


def test_a_match_ends_with_0_from_a_file_and_from_a_module(mine):
    for place in (mine, mine.removesuffix(".py")):
        ended = nnjax(
            "optcheck", f"{place}:momentum", "--against", "optax.sgd", "--learning-rate", "0.1", "--momentum", "0.9"
        )
        assert ended.code == 0, ended
        assert "MATCH" in ended.out
        assert "learning rate changes at every step" in ended.out


def test_a_file_with_the_name_of_a_library_does_not_take_its_place(mine, tmp_path):
    (tmp_path / "optax.py").write_text("from mine_of_the_test import averaged")
    ended = nnjax("optcheck", "optax.py:averaged", "--against", "momentum", "--allow", "velocity-ema")
    assert ended.code == 0, ended


def test_a_loop_in_compiled_code_ends_the_command(mine, tmp_path):
    (tmp_path / "forever.py").write_text(
        "import jax, jax.numpy as jnp, optax\n"
        "def update(g, s, p=None):\n"
        "    return jax.tree.map(lambda x: jax.lax.while_loop(lambda i: jnp.all(i < 5), jnp.sin, x), g), s\n"
        "forever = optax.GradientTransformation(lambda p: (), update)\n"
    )
    ended = process("optcheck", "forever.py:forever", "--against", "optax.sgd", "--seconds", "1")
    assert ended.code == 4, ended
    assert "from compiled code" in ended.err


def test_a_difference_ends_with_1_and_is_written(mine, tmp_path):
    ended = nnjax(
        "optcheck", f"{mine}:averaged", "--against", "momentum", "--json", "report.json", "--plot", "report.png",
    )  # fmt: skip
    assert ended.code == 1, ended
    assert "the velocity is a moving average" in " ".join(ended.out.split())
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema"] == "nnjax-optcheck-2"
    assert report["exit_code"] == 1
    assert {"learning_rate", "velocity"} == {causes[0]["place"] for causes in report["causes"]}
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_an_allowed_difference_ends_with_0(mine):
    assert nnjax("optcheck", f"{mine}:averaged", "--against", "momentum", "--allow", "velocity-ema").code == 0
    assert nnjax("optcheck", f"{mine}:averaged", "--against", "momentum", "--allow", "eps-inside").code == 1


def test_a_difference_without_a_cause_ends_with_2(mine):
    ended = nnjax("optcheck", f"{mine}:cubic", "--against", "momentum", "--max-fits", "100")
    assert ended.code == 2, ended
    assert "cause unknown" in ended.out


def test_an_unknown_reference_gives_no_cause_and_nothing_to_allow(mine):
    ended = nnjax(
        "optcheck", f"{mine}:averaged", "--against", "optax.adan", "--learning-rate", "1", "--max-fits", "300"
    )
    assert ended.code == 2, ended
    assert "formula of the candidate" in ended.out
    assert "the reference's is unknown" in ended.out


def test_a_broken_contract_ends_with_3(mine):
    ended = nnjax("optcheck", f"{mine}:frozen", "--against", "momentum")
    assert ended.code == 3, ended
    assert "breaks the contract" in ended.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing"),
        (("FILE:momentum",), "--against"),
        (("FILE:momentum", "--against", "optax.sgd", "--learning-rate", "fast"), "--learning-rate"),
        (("FILE:momentum", "--against", "optax.sgd", "--rate", "1"), "--rate"),
        (("FILE:momentum", "--against", "optax.nothing"), "optax.nothing"),
        (("FILE:nothing", "--against", "optax.sgd"), "it has"),
        (("FILE:number", "--against", "optax.sgd"), "not an optimizer"),
        (("FILE:broken", "--against", "optax.sgd", "--learning-rate", "1"), "my own mistake"),
        (("FILE:averaged", "--against", "optax.sm3", "--learning-rate", "1"), "raised by the reference"),
        (("nothing.py:momentum", "--against", "optax.sgd"), "there is no file nothing.py"),
        (("nothing.at.all:momentum", "--against", "optax.sgd"), "nothing"),
        (("momentum", "--against", "optax.sgd"), "MODULE:NAME"),
        (("exits.py:momentum", "--against", "optax.sgd"), "SystemExit: 7"),
        (("FILE:averaged", "--against", "momentum", "--json", "nowhere/report.json"), "nowhere/report.json"),
    ],
)
def test_what_cannot_run_ends_with_4(mine, tmp_path, arguments, says):
    (tmp_path / "exits.py").write_text("raise SystemExit(7)")
    ended = nnjax("optcheck", *(argument.replace("FILE", mine) for argument in arguments))
    assert ended.code == 4, ended
    assert says in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_the_place_of_a_mistake_is_in_the_candidate(mine):
    ended = nnjax("optcheck", f"{mine}:broken", "--against", "momentum")
    assert f"{mine}, line " in ended.err


def test_the_fixture_passes_what_matches_and_shows_what_does_not(optcheck):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        optcheck(optim.momentum(1e-3), optax.sgd(1e-3, 0.9))
        optcheck(optim.rmsprop(1e-3), optax.rmsprop(1e-3, eps_in_sqrt=False), allow=["eps-inside"])
        with pytest.raises(AssertionError, match="ε is added inside the root"):
            optcheck(optim.rmsprop(1e-3), optax.rmsprop(1e-3, eps_in_sqrt=False))
