"""`nnjax optcheck`: its output, its files and its five exit codes."""

import json
import sys
import time

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

def drifting_update(grads, state, params):
    b = jax.tree.map(lambda g, b: 0.9 * b + g, grads, state[0])
    return jax.tree.map(lambda b: -1e-3 * b, b), (b, state[1] + 1.0)

class Broken:
    def step(self, params, grads):
        raise RuntimeError("my own mistake")

drifting = (lambda params: (jax.tree.map(jnp.zeros_like, params), jnp.int32(0)), drifting_update)
broken, number = Broken(), 3
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


ENDINGS = {  # what the step does, and what is said
    "os._exit(0)": "os._exit(0)",
    "sys.exit(0)": "sys.exit(0)",
    "os.kill(os.getpid(), 9)": "signal 9 (SIGKILL)",
    "ctypes.string_at(0)": "signal 11 (SIGSEGV)",
    "os.close(1), print(1)": "Bad file descriptor",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_optimizer_that_ends_its_process_is_no_match(mine, tmp_path, ending):
    code = f"import ctypes, os, sys\ndef step(params, grads, state):\n    {ending}\n    return params, state\n"
    (tmp_path / "ends.py").write_text(code)
    ended = nnjax("optcheck", "ends.py:step", "--against", "sgd")
    assert ended.code == 4, ended
    assert ENDINGS[ending] in " ".join(ended.err.split())
    assert "RuntimeWarning" not in ended.err


def test_an_optimizer_that_takes_all_memory_is_ended(mine, tmp_path):
    (tmp_path / "greedy.py").write_text(
        "import numpy as np\ndef step(params, grads, state):\n    state = np.ones(2**33)\n    return params, state\n"
    )
    ended = nnjax("optcheck", "greedy.py:step", "--against", "sgd", "--memory", "8")
    assert ended.code == 4, ended
    assert "needs more than 8 GiB" in " ".join(ended.err.split()), ended


def test_hparams_reach_classes_of_torch(mine, tmp_path):
    (tmp_path / "own.py").write_text("import torch\nclass Own(torch.optim.Adam):\n    pass\n")
    options = ("--learning-rate", 0.5, "--eps", 1e-3, "--b1", 0.8)
    assert nnjax("optcheck", "own.py:Own", "--against", "optax.adam", *options).code == 0


def test_order_init_and_formats(mine, tmp_path):
    (tmp_path / "steps.py").write_text(
        "import jax\ndef step(a, b, c):\n    c = jax.tree.map(lambda m, g: 0.9 * m + g, c, a)\n"
        "    return jax.tree.map(lambda p, m: p - 1e-3 * m, b, c), c\n"
    )
    options = ("--order", "grads, params, state", "--init", "zeros")
    ended = nnjax("optcheck", "steps.py:step", "--against", "momentum", *options, "--format", "json")
    assert ended.code == 0, ended
    assert json.loads(ended.out)["called"].startswith("step(grads, params, state)")
    ended = nnjax("optcheck", "steps.py:step", "--against", "sgd", *options, "--format", "github")
    assert ended.code == 1, ended
    assert ended.out.startswith("::error file=steps.py,line=2::DIFFERENT")


def test_a_file_without_a_name_is_audited(mine):
    ended = nnjax("optcheck", mine)
    assert ended.code == 2, ended
    rows = {line.split()[0]: line for line in ended.out.splitlines()}
    assert rows["averaged"].endswith("  momentum; λ = 0.0001, μ = 0.9")
    assert "unknown" in rows["cubic"]
    assert rows["momentum"].endswith("  momentum; λ = 0.001, μ = 0.9")


def test_a_loop_in_compiled_code_ends_the_command(mine, tmp_path):
    (tmp_path / "forever.py").write_text(
        "import jax, jax.numpy as jnp, optax\n"
        "def update(g, s, p=None):\n"
        "    return jax.tree.map(lambda x: jax.lax.while_loop(lambda i: jnp.all(i < 5), jnp.sin, x), g), s\n"
        "forever = optax.GradientTransformation(lambda p: (), update)\n"
    )
    ended = process("optcheck", "forever.py:forever", "--against", "optax.sgd", "--seconds", "1")
    assert ended.code == 4, ended
    assert "did not end within 1 s" in ended.err


def test_a_difference_ends_with_1_and_is_written(mine, tmp_path):
    ended = nnjax(
        "optcheck", f"{mine}:averaged", "--against", "momentum", "--json", "report.json", "--plot", "report.png",
    )  # fmt: skip
    assert ended.code == 1, ended
    assert "the velocity is a moving average" in " ".join(ended.out.split())
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["schema"] == "nnjax-optcheck-3"
    assert report["exit_code"] == 1
    assert [[cause["id"] for cause in causes] for causes in report["causes"]] == [["velocity-ema"]]
    assert report["synonyms"] == [[["learning_rate"]]]  # the same updates for all gradients
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
        "optcheck", f"{mine}:averaged", "--against", "optax.contrib.dog", "--learning-rate", "1", "--max-fits", "300"
    )
    assert ended.code == 2, ended
    assert "formula of the candidate" in ended.out
    assert "that of the reference is unknown" in ended.out


def test_a_broken_contract_ends_with_3(mine):
    ended = nnjax("optcheck", f"{mine}:drifting", "--against", "momentum")
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


def test_hparams_reach_classes_with_other_names(mine, tmp_path):
    (tmp_path / "named.py").write_text(
        "class Alpha:\n    def __init__(self, alpha):\n        self.alpha = alpha\n"
        "    def step(self, params, grads):\n        return [p - self.alpha * g for p, g in zip(params, grads)]\n"
        "class Last:\n    def __init__(self, eta, params):\n        self.eta, self.params = eta, params\n"
        "    def step(self, grads):\n        for p, g in zip(self.params, grads):\n            p -= self.eta * g\n"
        "import torch\nclass Eta(torch.optim.Optimizer):\n    def __init__(self, params, eta):\n"
        "        super().__init__(params, {'eta': eta})\n    def step(self):\n        for group in self.param_groups:\n"
        "            for p in group['params']:\n                p.data -= group['eta'] * p.grad\n"
    )
    for name in ("Alpha", "Last", "Eta"):
        options = ("--learning-rate", 0.5, "--momentum", 0)  # only the reference takes a momentum
        assert nnjax("optcheck", f"named.py:{name}", "--against", "optax.sgd", *options).code == 0, name
    ended = nnjax("optcheck", "named.py:Alpha", "--against", "sgd", "--kind", "torch")
    assert ended.code == 4
    assert "needs a class or an instance of torch.optim.Optimizer" in " ".join(ended.err.split())


def test_the_time_limit_includes_imports(mine, tmp_path):
    (tmp_path / "sleeps.py").write_text("import time\ndef step(params, grads):\n    time.sleep(100)\n")
    start = time.monotonic()
    assert process("optcheck", "sleeps.py:step", "--against", "sgd", "--seconds", "8").code == 4
    assert time.monotonic() - start < 8.8
