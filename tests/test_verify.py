"""`nnjax verify` and the receipt: what is the same run is verified, and one changed bit is not."""

import math
import re
import shutil
from dataclasses import asdict

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import SMALL, Exit, assert_mistake, change_json, nnjax, read_json, succeed, write_wine

from nnjax import plot, train
from nnjax.cli import receipt, run_folder, weights_file
from nnjax.cli.config import Config
from nnjax.storage import checkpoint, tensor_file
from nnjax.storage.atomic_write import write_file
from nnjax.train.engine import fingerprint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run; not to be touched."""
    path = tmp_path_factory.mktemp("files")
    write_wine(path / "wine.csv")
    succeed("train", path / "wine.csv", "--target", "cultivar", "--out", path / "run", *SMALL)
    return path / "run"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture(scope="module")
def again(run):
    """What the run gives when it is trained again; training is tested once, the comparisons many times."""
    results, fit = [], train.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", lambda *a, **k: results.append(fit(*a, **k)) or results[0])
        ended = nnjax("verify", run)
    return results[0], ended


@pytest.fixture
def quick(again, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *_, **__: again[0])


def refused(ended: Exit, *problems):
    """Exit code 1, and these lines."""
    assert ended.code == 1, ended
    assert "Traceback" not in ended.out + ended.err
    _, *lines = ended.out[ended.out.index("not verified") :].splitlines()
    assert len(lines) == len(problems), lines
    for line, problem in zip(lines, problems, strict=True):
        assert re.search(problem, line), line


def test_a_run_is_verified_bit_for_bit(run, again):
    _, ended = again
    assert ended.code == 0, ended
    weights = read_json(run / "receipt.json")["weights"]
    assert f"verified {run} bit for bit: parameters and state have the SHA-256 {weights[:16]}…" in ended.out
    leaves, damage = weights_file.read_weights(run / "weights.safetensors")
    assert damage is None
    assert checkpoint.digest(leaves) == weights


def test_an_ensemble_with_patience_is_verified(tmp_path):
    given = ("--members", 2, "--strategy", "vmap", "--patience", 1, "--learning-rate", 0.3, "--epochs", 8)
    succeed("train", "digits", "--out", tmp_path / "run", *SMALL, *given)
    assert any(member["stopped"] for member in read_json(tmp_path / "run" / "result.json")["members"])
    ended = nnjax("verify", tmp_path / "run")
    assert ended.code == 0, ended
    assert "bit for bit" in ended.out
    around = read_json(tmp_path / "run" / "receipt.json")["bits_depend_on"]
    assert (around["members"], around["strategy"], around["mesh"]) == (
        "2",
        "vmap",
        "none" if len(jax.devices()) == 1 else "members 2",
    )


def test_the_receipt_names_what_bits_depend_on(run):
    made = read_json(run / "receipt.json")
    assert made["bits_depend_on"] == fingerprint.machine_fingerprint() | {
        "members": "none",
        "strategy": "none",
        "mesh": "none",
    }
    assert {"device", "cores", "jax", "jaxlib", "optax", "nnjax"} <= made["bits_depend_on"].keys()
    assert len(made["first_losses"]) == 10
    assert made["test"] == read_json(run / "result.json")["test"]
    assert made["resumed_anyway"] is False


@pytest.mark.usefixtures("quick")
def test_one_bit_of_the_weights_fails(copy):
    path = copy / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # of the last leaf
    path.write_bytes(content)
    with path.open("rb") as file:
        last = list(tensor_file.read_header(file, path).leaves)[-1]
    refused(
        nnjax("verify", copy),
        f"weights.safetensors is damaged: SHA-256 mismatch in {last}",
        rf"{last}: 1 of \d+ numbers differ from the repeated training, by up to \S+",
    )


@pytest.mark.usefixtures("quick")
def test_one_bit_of_weights_that_are_well_written_fails_too(copy):
    leaves, _ = weights_file.read_weights(copy / "weights.safetensors")
    tree = {}
    for name, leaf in leaves.items():
        changed = leaf.copy()
        if name == "params/1/w":
            changed.reshape(-1).view(np.uint32)[5] ^= 1
        tree[name] = changed
    write_file(copy / "weights.safetensors", *tensor_file.serialize(tree, "nnjax-weights", {}))
    refused(
        nnjax("verify", copy),
        "weights.safetensors has changed since the run: it does not match its SHA-256",
        r"params/1/w: 1 of 56 numbers differ from the repeated training, by up to \d",
    )


@pytest.mark.usefixtures("quick")
def test_the_picture_shows_which_leaf_differs(copy, tmp_path, monkeypatch):
    drawn, repetition = [], plot.repetition
    monkeypatch.setattr(plot, "repetition", lambda *a, **k: drawn.append(a) or repetition(*a, **k))
    assert nnjax("verify", copy, "--plot", tmp_path / "same.png").code == 0
    leaves, _ = weights_file.read_weights(copy / "weights.safetensors")
    tree = {name: leaf + np.float32(0.5 if name == "params/1/w" else 0) for name, leaf in leaves.items()}
    write_file(copy / "weights.safetensors", *tensor_file.serialize(tree, "nnjax-weights", {}))
    assert nnjax("verify", copy, "--plot", tmp_path / "other.png").code == 1
    assert [(list(apart), np.array_equal(*losses)) for *losses, apart in drawn] == [([], True), (["params/1/w"], True)]
    assert drawn[1][2]["params/1/w"] == pytest.approx(0.5)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("same.png", "other.png"))


@pytest.mark.usefixtures("quick")
def test_a_file_cut_short_fails(copy):
    path = copy / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(nnjax("verify", copy), "is damaged: truncated")


@pytest.mark.usefixtures("quick")
def test_a_receipt_of_other_weights_fails(copy):
    change_json(copy / "receipt.json", weights="0" * 64)
    refused(nnjax("verify", copy), "the weights of the repeated training differ from the receipt")


def test_settings_that_were_changed_fail(copy):
    change_json(copy / "config.json", learning_rate=0.01)
    ended = nnjax("verify", copy)
    assert ended.code == 1
    assert "config.json has changed since the run: it does not match its SHA-256" in ended.out
    assert "the weights of the repeated training differ from the receipt" in ended.out
    assert re.search(r"params/1/w: \d+ of 56 numbers differ from the repeated training, by", ended.out)


def test_other_data_are_said_before_anything_is_trained(run, copy, tmp_path, monkeypatch):
    lines = (run.parent / "wine.csv").read_text().splitlines()
    (tmp_path / "wine.csv").write_text("\n".join([lines[0], lines[1].replace("14.23", "14.24"), *lines[2:]]))
    change_json(copy / "config.json", data=str(tmp_path / "wine.csv"))
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained"))
    refused(nnjax("verify", copy), "the data or their split have changed since the run")


@pytest.mark.usefixtures("quick")
def test_the_same_data_in_another_place_are_the_same(run, copy, tmp_path):
    shutil.copy(run.parent / "wine.csv", tmp_path / "wine.csv")
    change_json(copy / "config.json", data=str(tmp_path / "wine.csv"), keep=7)
    assert nnjax("verify", copy).code == 0


# Other machines


def elsewhere(path, **values):
    """The receipt as another machine would have written it."""
    made = read_json(path / "receipt.json")
    around = made["bits_depend_on"] | {"jaxlib": "9.9", "cores": "64"}
    change_json(path / "receipt.json", bits_depend_on=around, **values)
    return made


@pytest.mark.usefixtures("quick")
def test_on_another_machine_losses_are_compared_to_a_tolerance_and_this_is_said(copy):
    made = elsewhere(copy)
    change_json(
        copy / "receipt.json",
        first_losses=[loss * 1.0005 for loss in made["first_losses"]],
        test=made["test"] | {"loss": made["test"]["loss"] * 1.05},
    )
    ended = nnjax("verify", copy)
    assert ended.code == 0, ended
    assert "bitwise equal weights cannot be expected, because this machine or its libraries differ:" in ended.out
    assert [line.split()[:2] for line in ended.out.splitlines() if "9.9" in line] == [["jaxlib", "9.9"]]
    assert "within tolerance: the first 10 losses agree to 0.001, the test loss to 0.1 (relative)" in ended.out
    assert "bit for bit" not in ended.out


@pytest.mark.usefixtures("quick")
def test_on_another_machine_other_losses_fail(copy):
    made = elsewhere(copy)
    losses = [*made["first_losses"][:4], made["first_losses"][4] * 1.002, *made["first_losses"][5:]]
    change_json(copy / "receipt.json", first_losses=losses, test=made["test"] | {"loss": made["test"]["loss"] * 1.2})
    refused(nnjax("verify", copy), r"loss of step 4: \S+ in the receipt, \S+ now", r"test loss: \S+ in the receipt")


@pytest.mark.usefixtures("quick")
def test_on_another_machine_changed_weights_fail_all_the_same(copy):
    elsewhere(copy)
    params, state = (np.zeros(3, np.float32),), ()
    weights_file.save_weights(copy / "weights.safetensors", params, state)
    refused(nnjax("verify", copy), "weights.safetensors has changed since the run")


@pytest.mark.usefixtures("quick")
def test_a_run_that_went_on_anyway_is_compared_to_a_tolerance(copy):
    change_json(copy / "receipt.json", resumed_anyway=True)
    ended = nnjax("verify", copy)
    assert ended.code == 0
    assert "bitwise equal weights cannot be expected, because the run was resumed with --anyway\n" in ended.out
    assert "within tolerance" in ended.out


# Mistakes


def test_what_cannot_be_verified_is_said(copy, tmp_path):
    assert_mistake(nnjax("verify", tmp_path / "nowhere"), "nowhere holds no run")
    for content in ("{", "[]", "{}", '{"weights": 1}'):
        (copy / "receipt.json").write_text(content)
        assert_mistake(nnjax("verify", copy), "receipt.json is damaged: ")
    (copy / "receipt.json").unlink()
    assert_mistake(nnjax("verify", copy), f"copy is not finished, .* continue with: nnjax train --resume {copy}")


def test_weights_that_are_not_there_are_a_mistake(copy):
    (copy / "weights.safetensors").unlink()
    assert_mistake(nnjax("verify", copy), "no weights file .*weights.safetensors")


# The receipt's functions


@given(
    st.sampled_from([np.float32, np.float64, np.int32, np.float16]),
    st.lists(st.integers(0, 3), min_size=0, max_size=3),
    st.data(),
)
@settings(max_examples=50)
def test_any_one_bit_is_found_and_nothing_else(dtype, shape, drawn):
    a = np.arange(math.prod(shape), dtype=dtype).reshape(shape)
    assert receipt.weight_differences({"a": a, "b": a}, {"a": a.copy(), "b": a}) == []
    if a.size == 0:
        return
    b = a.copy()
    byte, bit = drawn.draw(st.integers(0, a.nbytes - 1)), drawn.draw(st.integers(0, 7))
    b.reshape(-1).view(np.uint8)[byte] ^= 1 << bit
    (found,) = receipt.weight_differences({"a": a, "b": a}, {"a": b, "b": a})
    assert (found.name, found.numbers, found.size) == ("a", 1, a.size)
    gap = np.abs(a.astype(float) - b.astype(float)).max()
    assert found.largest == gap or math.isnan(found.largest)


def test_leaves_that_are_missing_or_of_another_shape_differ_whole():
    a, b = np.zeros(3, np.float32), np.zeros((3, 2), np.float32)
    found = receipt.weight_differences({"a": a, "b": b, "c": a}, {"a": b, "c": a})
    assert [(d.name, d.numbers, d.size) for d in found] == [("a", 6, 6), ("b", 6, 6)]
    nan = np.array([np.nan], np.float32)
    assert receipt.weight_differences({"a": nan}, {"a": nan.copy()}) == []


def settings_digest(config):
    return run_folder.settings_digest(asdict(config))


def test_settings_that_decide_nothing_are_not_in_the_digest():
    base = settings_digest(Config("a"))
    assert base == settings_digest(Config("b", data_dir="c", save_every=1.0, keep=9))
    for other in (Config("a", seed=1), Config("a", members=2), Config("a", epochs=3), Config("a", patience=2)):
        assert settings_digest(other) != base


def test_close_names_the_first_loss_that_is_too_far():
    def one(losses, test=1.0):
        return {"first_losses": losses, "test": {"loss": test}}

    assert receipt.loss_differences(one([1.0, 2.0]), one([1.0005, 2.0], 1.05)) == []
    assert receipt.loss_differences(one([1.0, 2.0]), one([1.0, 2.01])) == [("loss of step 1", 2.0, 2.01)]
    many = receipt.loss_differences(one([[1.0, 2.0], [1.0, 2.0]]), one([[1.0, 2.0], [1.1, 2.0]]))
    assert many == [("loss of step 0 of member 1", 1.0, 1.1)]
    assert receipt.loss_differences(one([1.0, math.nan]), one([1.0, math.nan])) == []
    assert receipt.loss_differences(one([1.0, None]), one([1.0, math.inf])) == []  # as they stand in a file
    assert receipt.loss_differences(one([1.0], None), one([1.0], math.nan)) == []
    assert receipt.loss_differences({"first_losses": [1.0], "test": None}, {"first_losses": [1.0], "test": None}) == []
    assert (
        len(receipt.loss_differences(one([1.0, None]), one([1.0, 1.0])))
        == len(receipt.loss_differences(one([1.0]), one([1.0], None)))
        == 1
    )
    assert receipt.loss_differences(one([1.0]), one([1.0, 2.0])) == [("number of first losses", 1.0, 2.0)]
    assert receipt.loss_differences(one([1.0], 1.0), one([1.0], 0.8)) == [("test loss", 1.0, 0.8)]
