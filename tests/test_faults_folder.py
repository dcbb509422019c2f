"""Run folders that were damaged, exchanged, deleted or filled: each file and each fault gets one sentence."""

import errno
import json
import os
import random
import re
import shutil
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from runs import SMALL, assert_mistake, change_json, nnjax, read_json, succeed, with_warnings, write_wine
from train_runs import assert_equal, fit

from nnjax import train
from nnjax.cli import weights_file
from nnjax.storage import atomic_write, checkpoint, json_file, paths, tensor_file
from nnjax.storage.background_writer import checkpoint_writer

JSON_FILES = ("config.json", "table.json", "result.json", "receipt.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run; not to be touched."""
    path = tmp_path_factory.mktemp("files")
    write_wine(path / "wine.csv")
    succeed("train", path / "wine.csv", "--target", "cultivar", "--out", path / "run", *SMALL)
    return path / "run"


@pytest.fixture(scope="module")
def other(run):
    """A run of the same shapes; not to be touched."""
    path = run.parent / "other"
    succeed("train", run.parent / "wine.csv", "--target", "cultivar", "--out", path, *SMALL, "--seed", 1)
    return path


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture
def untrained(monkeypatch):
    """Nothing is trained: what is wrong is said before."""
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(train, "replay", lambda *_, **__: pytest.fail("trained"))


def predict(path, run):
    return nnjax("predict", path, run.parent / "wine.csv", "--out", path.parent / "p.csv")


def flipped(path, step, seed=0):
    """Flip one bit after another, and yield after each."""
    whole = path.read_bytes()
    for bit in range(random.Random(seed).randrange(step), 8 * len(whole), step):
        byte = bit // 8
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << bit % 8]) + whole[byte + 1 :])
        yield
    path.write_bytes(whole)


def content(path):
    """Return the content of a JSON file without the entries that change no result, or None if it is not JSON."""
    try:
        values = json.loads(path.read_bytes())
        return {k: v for k, v in values.items() if k not in ("data", "data_dir", "save_every", "keep")}
    except (ValueError, AttributeError):
        return None


@pytest.mark.parametrize("name", [*JSON_FILES, "weights.safetensors"])
def test_a_flipped_bit_is_noticed_by_predict_or_harmless(run, copy, name):
    step = 331 if name != "weights.safetensors" else 1999
    before, tried = content(run / name), 0
    for _ in flipped(copy / name, step):
        ended = predict(copy, run)
        if name == "weights.safetensors" or content(copy / name) != before:
            assert_mistake(ended, "")
            tried += 1
    assert tried > 5
    assert predict(copy, run).code == 0


@pytest.mark.parametrize("name", ["config.json", "table.json"])
def test_a_flipped_bit_of_an_unfinished_run_is_noticed_by_resume_and_replay(run, copy, untrained, name):
    (copy / "receipt.json").unlink()
    before = content(run / name)
    for _ in flipped(copy / name, 331):
        if content(copy / name) != before:
            for command in (("train", "--resume", copy), ("replay", copy)):
                assert_mistake(nnjax(*command), "")


CHANGES = {  # file: a change that leaves a valid file
    "config.json": {"seed": 7},
    "table.json": {"mean": [0.0] * 8},
    "result.json": {"steps": 17},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_valid_file_that_was_changed_is_named_by_every_command(run, copy, untrained, name):
    size = len(read_json(run / "table.json")["mean"])
    change_json(copy / name, **{k: v[:size] if isinstance(v, list) else v for k, v in CHANGES[name].items()})
    message = rf"{copy}: {name} has changed since the run: it does not match its SHA-256; restore the file, or train"
    assert_mistake(predict(copy, run), message)
    if name != "result.json":  # which replay does not read
        assert_mistake(nnjax("replay", copy), message)
    (copy / "receipt.json").unlink()
    if name != "result.json":
        assert_mistake(nnjax("train", "--resume", copy), message)


@pytest.mark.parametrize("name", ["config.json", "table.json", "result.json", "weights.safetensors", "receipt.json"])
def test_a_file_of_another_run_is_noticed(run, other, copy, name):
    if (run / name).read_bytes() == (other / name).read_bytes():
        pytest.fail("the runs do not differ")
    shutil.copy(other / name, copy / name)
    assert_mistake(predict(copy, run), r".* has changed since the run: it does not match its SHA-256")


def test_weights_whose_leaves_were_swapped_are_noticed(run, copy):
    leaves, _ = weights_file.read_weights(run / "weights.safetensors")
    a, b = "params/2/scale", "params/2/bias"
    assert leaves[a].shape == leaves[b].shape
    tree = leaves | {a: leaves[b], b: leaves[a]}
    atomic_write.write_file(copy / "weights.safetensors", *tensor_file.serialize(tree, "nnjax-weights", {}))
    message = "weights.safetensors has changed since the run"
    assert_mistake(predict(copy, run), f".*{message}")


def test_verify_names_every_file_that_changed(run, copy, monkeypatch):
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained"))
    for name in ("table.json", "metrics.csv", "result.json"):
        (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    change_json(copy / "receipt.json", data="0" * 64)
    ended = nnjax("verify", copy)
    assert ended.code == 1
    for name in ("table.json", "metrics.csv", "result.json"):
        assert f"  {name} has changed since the run: it does not match its SHA-256\n" in ended.out
    (copy / "metrics.csv").unlink()
    assert "  metrics.csv cannot be read: No such file or directory\n" in nnjax("verify", copy).out


def test_without_a_receipt_predict_warns(run, copy):
    (copy / "receipt.json").unlink()
    ended = with_warnings("predict", copy, run.parent / "wine.csv")
    assert ended.code == 0
    assert ended.err == (
        f"warning {copy} has no receipt.json, so it is not certain that result.json and weights.safetensors belong to "
        "this run\n"
    )


def test_the_receipt_has_the_checksum_of_every_file(run):
    receipt = read_json(run / "receipt.json")
    assert receipt["files"] == {
        name: json_file.file_digest(run / name)
        for name in ("table.json", "weights.safetensors", "metrics.csv", "result.json", "report.html")
    }
    assert receipt["settings"] == read_json(run / "config.json")["sha256"]["settings"]


# Values of the wrong kind

KINDS = {  # file and change: message
    ("table.json", '{"mean": ["1"]}'): r"table.json.mean\[0\] must be a finite number, got '1'",
    ("table.json", '{"mean": [1.0]}'): r"table.json: mean: expected \d+ numbers, got 1",
    ("table.json", '{"std": []}'): r"table.json: std: expected \d+ numbers, got 0",
    ("table.json", '{"target_std": 0}'): "table.json: std: expected finite numbers > 0",
    ("table.json", '{"target_std": true}'): "table.json.target_std must be a finite number, got True",
    ("table.json", '{"target_std": null}'): "table.json.target_std must be a finite number, got None",
    ("table.json", '{"task": "regression"}'): "classes: got 3 for a regression",
    ("table.json", '{"classes": ["a"]}'): "classes: got 1 for a classification",
    ("table.json", '{"classes": ["a", "a"]}'): "classes: two entries are equal",
    ("table.json", '{"columns": []}'): "columns: expected at least 1, got 0",
    ("table.json", '{"columns": [3]}'): r"table.json.columns\[0\] must be an object, got 3",
    ("table.json", '{"columns": [["x", "number", 4]]}'): r"columns\[0\].categories must be a list or null, got 4",
    ("table.json", '{"more": 1}'): "table.json has an unknown entry 'more'",
    ("config.json", '{"sha256": null}'): "content.sha256 must be an object, got None",
    ("config.json", '{"versions": {"jax": 1}}'): "content.versions.jax must be text, got 1",
    ("config.json", '{"width": 1e3}'): "width must be an integer, got 1000.0",
    ("config.json", '{"width": 99999999999999999999}'): "width must be an integer, got 99999999999999999999",
    ("config.json", '{"epochs": [1]}'): r"epochs must be a finite number or null, got \[1\]",
    ("result.json", '{"test": 3}'): "result.json is damaged: content.test must be an object or null, got 3",
    ("result.json", '{"test": {"loss": "x"}}'): "content.test.loss must be a finite number or null, got 'x'",
    ("result.json", '{"left_out": [0]}'): "left_out does not match members=None in config.json",
    ("result.json", '{"steps": 1.5}'): "content.steps must be an integer, got 1.5",
    ("receipt.json", '{"weights": 3}'): "receipt.json is damaged: content.weights must be text, got 3",
    ("receipt.json", '{"first_losses": {}}'): "content.first_losses must be a list or a list, got {}",
    ("receipt.json", '{"resumed_anyway": 0}'): "content.resumed_anyway must be true or false, got 0",
    ("receipt.json", '{"files": {}}'): "expected the checksums of table.json, weights.safetensors",
    ("receipt.json", '{"sha256": "0"}'): "receipt.json is damaged: its content does not match its SHA-256",
}


@pytest.mark.parametrize(("place", "message"), KINDS.items(), ids=map(" ".join, KINDS))
def test_a_value_of_the_wrong_kind_is_named(run, copy, place, message):
    name, change = place
    values = read_json(copy / name) | json.loads(change)
    if name == "receipt.json" and "sha256" not in change:
        change_json(copy / name, **json.loads(change))
    else:
        (copy / name).write_text(json.dumps(values), encoding="utf-8")
    assert_mistake(predict(copy, run), f".*{message}")


CONTENTS = {  # what a JSON file holds: message
    b"": "Expecting value",
    b"[]": r"expected an object, got \[\]",
    b"null": "expected an object, got None",
    b"\xff\xfe": "codec can't decode",
    b'{"a": 1, "a": 2}': "the entry 'a' occurs twice",
    b'{"a": NaN}': "NaN is not a finite number",
    b'{"a": -Infinity}': "-Infinity is not a finite number",
    b'{"a": 1e999}': "'1e999' is not a finite number",
    b'{"a": ' + b"9" * 5000 + b"}": "Exceeds the limit",
    b'{"a": ' + b"[" * 10**6: "recursion",
    b'{"' + b"a" * 10**7 + b'": 1': "Expecting",
}


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("key", range(len(CONTENTS)))
def test_a_json_file_of_other_content_is_answered_in_one_sentence(run, copy, name, key):
    inside, message = list(CONTENTS.items())[key]
    (copy / name).write_bytes(inside)
    ended = predict(copy, run)
    assert_mistake(ended, f".*{name}.* is damaged: .*{message}")
    assert len(ended.err) < 1000


def fifo(path):
    os.mkfifo(path)


def large(path):
    with path.open("wb") as file:
        file.truncate(100 * 2**20)


PLACES = {  # what takes the place of a file: message
    "folder": (Path.mkdir, "is not a regular file, but a folder, a pipe or a device"),
    "pipe": (fifo, "is not a regular file, but a folder, a pipe or a device"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file, but a folder, a pipe or a device"),
    "loop": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "large": (large, "has 104,857,600 bytes, expected at most 67,108,864|header of 0 bytes|has changed since the run"),
}


@pytest.mark.parametrize("name", [*JSON_FILES, "weights.safetensors"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["predict", "verify"])
def test_a_file_that_is_no_file_is_answered_in_one_sentence(run, copy, untrained, name, place, command):
    make, message = PLACES[place]
    (copy / name).unlink()
    make(copy / name)
    if command == "predict":
        assert_mistake(predict(copy, run), f".*({message})")
    elif name in ("config.json", "table.json", "receipt.json"):
        assert_mistake(nnjax("verify", copy), f".*({message})")


@pytest.mark.parametrize("place", PLACES)
def test_a_checkpoint_that_is_no_file_is_skipped(tmp_path, place):
    checkpoint.save(checkpoint.step_path(tmp_path, 1), {"w": np.ones(2)}, {"step": 1})
    PLACES[place][0](checkpoint.step_path(tmp_path, 2))
    with pytest.warns(UserWarning, match=f"({PLACES[place][1]}).*0001.safetensors is used instead"):
        assert checkpoint.latest(tmp_path, {"w": np.ones(2)})[2] == {"step": 1}


# Checkpoints


def rewritten(path, change):
    """Write a checkpoint again, with valid checksums, after a change of its metadata and leaves."""
    leaves, header = tensor_file.read(path)
    metadata = change(header.metadata, leaves)
    checkpoint.save(path, leaves, metadata)


METADATA = {
    "no metadata": (lambda m: {}, "its metadata lacks the entry 'done'"),
    "text": (lambda m: m | {"done": "x"}, "its metadata.done must be a list, got 'x'"),
    "negative": (lambda m: m | {"done": [-1]}, "its metadata.done must be numbers of steps"),
    "nothing": (lambda m: m | {"done": []}, "its metadata.done must be numbers of steps"),
    "numbers": (lambda m: m | {"scores": [1]}, r"its metadata\.scores must be an object, got \[1\]"),
    "score": (lambda m: m | {"score": "low"}, "its metadata.score must be a finite number or null, got 'low'"),
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_of_the_wrong_kind_are_named(tmp_path, what):
    fit(out=tmp_path, epochs=1)
    change, message = METADATA[what]
    for path in checkpoint.files(tmp_path):
        rewritten(path, lambda metadata, _: change(metadata))
    with pytest.raises(ValueError, match=f"a checkpoint was not written by fit, .*: {message}"):
        fit(out=tmp_path, resume=True)


HEADERS = {
    "dtypes": ({"dtypes": {"w": "float3"}}, "invalid header, .*float3"),
    "a dtype of another size": ({"dtypes": {"w": "int4"}}, "invalid header, .*cannot hold int4"),
    "a key of another kind": ({"dtypes": {"w": "key nothing"}}, "invalid header, .*nothing"),
    "checksums": ({"sha256": {"w": 3}}, "invalid header, sha256.w must be text, got 3"),
    "empty": ({"empty": []}, r"invalid header, empty must be an object, got \[\]"),
    "metadata": ({"metadata": 3}, "invalid header, metadata must be an object, got 3"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_of_the_wrong_kind_is_named(tmp_path, monkeypatch, what):
    change, message = HEADERS[what]
    dumps = json.dumps

    def changed(value, **more):
        if isinstance(value, dict) and "__metadata__" in value:
            notes = value["__metadata__"] | {name: dumps(new) for name, new in change.items()}
            value = value | {"__metadata__": notes}
        return dumps(value, **more)

    monkeypatch.setattr(tensor_file.json, "dumps", changed)
    checkpoint.save(tmp_path / "c", {"w": np.ones(2, np.float32)}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"is damaged or not a safetensors file: {message}"):
        checkpoint.load(tmp_path / "c", {})


def test_a_checkpoint_creates_its_folder_and_expands_the_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint.save("~/new/folder/c", {"w": np.ones(2)}, {"step": 3})
    assert checkpoint.load(tmp_path / "new" / "folder" / "c", {"w": np.ones(2)})[1] == {"step": 3}
    assert checkpoint.load("~/new/folder/c", {"w": np.ones(2)})[1] == {"step": 3}
    assert checkpoint.read_metadata("~/new/folder/c") == checkpoint.verify("~/new/folder/c") == {"step": 3}
    fit(out="~/run", epochs=1)
    assert checkpoint.files("~/run") == checkpoint.files(tmp_path / "run") != []
    with checkpoint_writer("~/written") as save:
        save(1, {"w": np.ones(2)}, {}, wait=True)
    assert len(checkpoint.files(tmp_path / "written")) == 1
    assert checkpoint.latest("~/written", {"w": np.ones(2)})[0].parent == tmp_path / "written"
    assert paths.as_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


# Folders that are deleted, full or cannot be written while a run trains


def deleted(folder):
    while folder.exists():  # the writer may be creating a file in it
        shutil.rmtree(folder, ignore_errors=True)


def refuse_writes(folder, error, monkeypatch):
    """Let each file that is opened for writing below the folder fail; permissions would not stop root."""
    open_path = Path.open

    def refuse(path, mode="r", *more, **options):
        if path.is_relative_to(folder) and mode[0] in "wxa":
            raise OSError(error, os.strerror(error), str(path))
        return open_path(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", refuse)


@pytest.fixture(params=["deleted", "read-only", "full"])
def spoil(request, monkeypatch):
    if request.param == "deleted":
        return deleted
    error = errno.EROFS if request.param == "read-only" else errno.ENOSPC
    return lambda folder: refuse_writes(folder, error, monkeypatch)


def spare(folder):
    """The only folder that took the place of this one."""
    (found,) = (path for path in folder.parent.glob(f"{folder.name}-*") if path.is_dir())
    return found


@pytest.mark.parametrize("groups", [None, 2])
def test_a_run_whose_folder_is_lost_ends_with_its_result_and_a_checkpoint_elsewhere(tmp_path, spoil, groups):
    out = tmp_path / "run"
    many = {} if groups is None else {"members": 3, "group": groups}

    def callback(ts, record):
        if record["step"] >= 10 and out.exists():  # again if a write in progress made the folder
            spoil(out)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit(out=out, save_every=0, callbacks=[callback], **many)
    assert_equal(result.ts, fit(**many).ts)
    *earlier, last = (str(warning.message) for warning in caught)
    found = re.fullmatch(
        rf"fit: {out}\S* cannot be written to \(.*\), so the checkpoint of step 15 is saved in (\S+), from which "
        "resume=True continues",
        last,
    )
    assert all(re.match("a checkpoint was not written: .*; trying again|fit: ", text) for text in earlier)
    assert Path(found[1]).parent == tmp_path
    if groups is None:
        shutil.rmtree(out, ignore_errors=True)
        assert_equal(fit(out=found[1], resume=True).ts, result.ts)


def test_a_folder_that_is_deleted_is_said_at_the_next_save(tmp_path):
    message = f"the folder {tmp_path}/run was deleted or moved"
    with checkpoint_writer(tmp_path / "run") as save:
        save(1, {"w": np.ones(2)}, {}, wait=True)
        shutil.rmtree(tmp_path / "run")
        save(2, {"w": np.ones(2)}, {})
        with (
            pytest.warns(RuntimeWarning, match=f"a checkpoint was not written: {message}; trying again"),
            pytest.raises(FileNotFoundError, match=message),
        ):
            save(3, {"w": np.ones(2)}, {}, wait=True)


def test_an_interrupted_run_whose_folder_is_lost_says_where_it_is(tmp_path, spoil):
    out = tmp_path / "run"

    def callback(ts, record):
        if record["step"] == 10:
            spoil(out)
            os.kill(os.getpid(), signal.SIGHUP)

    with pytest.warns(RuntimeWarning, match="cannot be written"), pytest.raises(train.InterruptedRun) as stop:
        fit(out=out, save_every=1e9, callbacks=[callback])
    assert stop.value.folder == spare(out)
    shutil.rmtree(out, ignore_errors=True)
    assert_equal(fit(out=stop.value.folder, resume=True).ts, fit().ts)


def test_a_run_that_can_be_saved_nowhere_ends_with_the_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        fit(out=tmp_path / "run", save_every=1e9)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_command_whose_folder_is_lost_writes_to_another_one(run, tmp_path, spoil, monkeypatch, stopped):
    real = train.fit

    def lose(*arguments, callbacks, **settings):
        def callback(ts, record):
            if record["epoch"] == 1:
                spoil(tmp_path / "lost")
                if stopped:
                    os.kill(os.getpid(), signal.SIGTERM)

        return real(*arguments, callbacks=[*callbacks, callback], **settings)

    monkeypatch.setattr(train, "fit", lose)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(temporary))
    given = ("train", run.parent / "wine.csv", "--target", "cultivar", *SMALL)
    ended = with_warnings(*given, "--out", tmp_path / "lost")
    monkeypatch.setattr(train, "fit", real)
    assert ended.code == (130 if stopped else 0), ended
    other = next(path for path in tmp_path.glob("lost-*"))
    if stopped:
        assert ended.code == 130
        assert ended.err.endswith(f"continue with: nnjax train --resume {other}\n")
        succeed("train", "--resume", other, "--no-plots")
    else:
        assert ended.code == 0, ended
        assert f"so the results are written to {other}\n" in ended.err
        assert f"written to {other} after" in ended.out
    assert (other / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    assert predict(other, run).code == 0
