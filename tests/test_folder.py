"""Run folders: nothing is half-written, what is saved comes back bit for bit, what is damaged is said to be."""

import json
import os
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from nnjax import nn
from nnjax.cli import run_folder, weights_file
from nnjax.cli.config import Config, make_net
from nnjax.data.table import Column, Table
from nnjax.storage.atomic_write import write_file, write_json, write_records

TABLE = Table(
    "classification", "kind [µm]", ["a", "b"], [Column("x"), Column("c", "text", ["u", "v"])], [0.1] * 3, [1 / 3] * 3
)


THOROUGH = os.environ.get("NNJAX_THOROUGH") == "1"


def files(path):
    return sorted(file.name for file in path.iterdir())


def full(*_):
    raise OSError(28, "No space left on device")


def stopped(*_):
    raise KeyboardInterrupt


# Writing


def test_a_file_is_written_and_overwritten(tmp_path):
    for content in (b"one", b"", b"\0" * 100_000):
        write_file(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("fail", [full, stopped])
@pytest.mark.parametrize(("holder", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, holder, name, fail):
    path = tmp_path / "weights"
    write_file(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, fail)
        with pytest.raises((OSError, KeyboardInterrupt)) as caught:
            write_file(path, b"new and longer")
    assert caught.value.__notes__ == [f"while writing 14 bytes to {path}"]
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["weights"]


def test_a_write_is_synced_before_it_takes_the_place_of_the_old_file(tmp_path, monkeypatch):
    synced = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (synced.index(5), replace(old, new)))
    write_file(tmp_path / "file", b"123", b"45")
    assert (tmp_path / "file").read_bytes() == b"12345"


def test_a_write_into_no_folder_names_the_path(tmp_path):
    (tmp_path / "file").touch()
    for parent, error in (("nowhere", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(error) as caught:
            write_file(tmp_path / parent / "out.csv", b"123")
        assert caught.value.__notes__ == [f"while writing 3 bytes to {tmp_path / parent / 'out.csv'}"]


def test_a_folder_is_created_once(tmp_path):
    path = tmp_path / "runs" / "one"
    run_folder.create(path, Path.is_dir)
    run_folder.create(path, Path.is_dir)  # still empty
    for name, message in {
        run_folder.WEIGHTS: "already holds a run; choose another folder",
        run_folder.CONFIG: f"an unfinished run; continue with: nnjax train --resume {path}",
        run_folder.RECEIPT: "already holds a run; choose another folder",
        run_folder.SWEEP: f"an unfinished sweep; continue with: nnjax sweep --resume {path}",
        run_folder.ROWS: "already holds a run; choose another folder",
    }.items():
        (path / name).touch()
        with pytest.raises(FileExistsError, match=message):
            run_folder.create(path, Path.is_dir)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        run_folder.create(tmp_path / "file", Path.is_dir)


@pytest.mark.parametrize("name", [run_folder.METRICS, run_folder.ROWS])
def test_data_with_the_name_of_a_result_are_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("x,y\n1,2\n")
    with pytest.raises(FileExistsError, match=f"holds a file {name}, which a run would overwrite"):
        run_folder.create(tmp_path, Path.is_dir)
    assert (tmp_path / name).read_text() == "x,y\n1,2\n"


def test_records_have_a_column_for_every_name(tmp_path):
    write_records(tmp_path / "m.csv", [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1e-9, "score": 0.5}])
    assert (tmp_path / "m.csv").read_text() == "epoch,loss,score\n1,0.1,\n2,1e-09,0.5\n"


def test_json_keeps_letters_and_ends_its_line(tmp_path):
    write_json(tmp_path / "r.json", {"unit": "µm", "pi": 0.1 + 0.2})
    text = (tmp_path / "r.json").read_text()
    assert "µm" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"unit": "µm", "pi": 0.1 + 0.2}


# Weights


def trained_like(net, x):
    """Parameters and state with values in every bit."""
    rng = np.random.default_rng(0)
    noise = lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    return jax.tree.map(noise, net.init(jax.random.key(0), x))


def bits(tree):
    return [(str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


NETS = {
    "mlp": nn.mlp([4, 4], 2, norm="batch", dropout=0.1),
    "residual": nn.residual_mlp(4, 3, 2, norm="batch"),
    "conv": nn.serial(nn.reshape((2, 2, 1)), nn.conv(3, 2), nn.flatten(), nn.dense(2)),
    "scale": nn.serial(nn.dense(3), nn.scale(0.5)),
    "linear": nn.mlp([], 2),
    "nothing": nn.serial(nn.flatten()),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16], ids=str)
def test_weights_come_back_bit_for_bit(tmp_path, net, dtype):
    x = jax.ShapeDtypeStruct((2, 4), dtype)
    params, state = trained_like(net, x)
    weights_file.save_weights(tmp_path / "w", params, state)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    back = weights_file.load_weights(tmp_path / "w", *shapes)
    assert jax.tree.structure(back) == jax.tree.structure((params, state))
    assert bits(back) == bits((params, state))


def test_weights_of_any_dtype_and_shape(tmp_path):
    params = {
        "number": jnp.float32(1.5),
        "none": jnp.zeros((0, 3)),
        "count": jnp.int32(7),
        "flags": jnp.array([True, False]),
        "bytes": jnp.arange(3, dtype=jnp.uint8),
        "special": jnp.array([np.nan, -np.inf, -0.0, 1e-45], jnp.float32),
        "turned": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
    }
    weights_file.save_weights(tmp_path / "w", params, ())
    back, state = weights_file.load_weights(tmp_path / "w", params, ())
    assert state == ()
    assert bits(back) == bits(params)
    np.testing.assert_array_equal(back["turned"], params["turned"])


@pytest.fixture
def saved(tmp_path):
    """The path of saved weights, and the shapes to load them with."""
    params, state = trained_like(NETS["mlp"], jnp.ones((2, 4)))
    weights_file.save_weights(tmp_path / "weights", params, state)
    return tmp_path / "weights", (params, state)


def test_weights_of_another_network_are_answered_with_the_differences(saved):
    path, _ = saved
    other = nn.mlp([8, 4], 2, dropout=0.1)
    with pytest.raises(ValueError, match="is from a different network") as caught:
        weights_file.load_weights(path, *jax.eval_shape(other.init, jax.random.key(0), jnp.ones((2, 4))))
    lines = str(caught.value).splitlines()[1:]
    assert "  params/1/b: saved nothing, expected ((8,), 'float32')" in lines
    assert "  params/1/w: saved ((4, 4), 'float32'), expected ((4, 8), 'float32')" in lines
    assert "  state/2/mean: saved ((4,), 'float32'), expected nothing" in lines
    assert sorted(lines) == lines
    same = nn.mlp([4, 4], 3, norm="batch", dropout=0.1)
    with pytest.raises(ValueError, match="is from a different network") as caught:
        weights_file.load_weights(path, *jax.eval_shape(same.init, jax.random.key(0), jnp.ones((2, 4))))
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == ["  params/7/b", "  params/7/w"]


def test_weights_of_another_dtype_are_not_cast(saved):
    path, (params, state) = saved
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    with pytest.raises(
        ValueError, match=r"params/1/w: saved \(\(4, 4\), 'float32'\), expected \(\(4, 4\), 'bfloat16'\)"
    ):
        weights_file.load_weights(path, half, state)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x80\x04pickle.", b"PK\x03\x04" + b"\0" * 99, b"{" * 200], ids=str
)
def test_files_that_hold_no_weights(saved, content):
    path, tree = saved
    path.write_bytes(content)
    with pytest.raises(ValueError, match="weights is damaged or not a safetensors file"):
        weights_file.load_weights(path, *tree)


def test_weights_cut_short_anywhere(saved):
    path, tree = saved
    whole = path.read_bytes()
    for length in (*range(0, len(whole), 37), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is damaged"):
            weights_file.load_weights(path, *tree)


def test_a_flipped_bit_in_the_header_never_gives_other_weights(saved):
    path, tree = saved
    whole = path.read_bytes()
    refused = 0
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    flips = [(byte, bit) for byte in range(0, header, 1 if THOROUGH else 5) for bit in (0, byte % 8)]
    for byte, bit in flips:
        path.write_bytes(whole[:byte] + bytes([whole[byte] ^ 1 << bit]) + whole[byte + 1 :])
        try:
            loaded = weights_file.load_weights(path, *tree)
        except ValueError:
            refused += 1
        else:
            assert bits(loaded) == bits(tree)  # a space became another
    assert refused > 0.9 * len(flips)


def test_missing_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights file .*nowhere"):
        weights_file.load_weights(tmp_path / "nowhere", (), ())


def test_more_weights_than_wanted_are_named(tmp_path):
    (tmp_path / "w").write_bytes(save({"params/w": np.ones(2, np.float32), "extra": np.ones(1, np.float32)}))
    with pytest.raises(ValueError, match=r"extra: saved \(\(1,\), 'float32'\), expected nothing"):
        weights_file.load_weights(tmp_path / "w", {"w": jnp.ones(2)}, ())


# Settings

CONFIG = Config(
    "wine.csv", target="kind", task="classification", width=8, depth=3, skip=True, learning_rate=0.1, epochs=2.5
)


def test_settings_come_back_the_same(tmp_path):
    run_folder.save_config(tmp_path, CONFIG, TABLE, {"jax": "1"})
    assert run_folder.load_config(tmp_path) == (CONFIG, TABLE)
    assert json.loads((tmp_path / run_folder.CONFIG).read_text())["versions"] == {"jax": "1"}
    assert make_net(run_folder.load_config(tmp_path)[0], 2).name == "residual_mlp"


def test_a_folder_without_settings_holds_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"holds no run: config.json or table.json is missing"):
            run_folder.load_config(path)
    write_json(tmp_path / run_folder.CONFIG, {})
    with pytest.raises(FileNotFoundError, match="holds no run"):
        run_folder.load_config(tmp_path)


@pytest.mark.parametrize("name", [run_folder.CONFIG, run_folder.TABLE])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "3", '"text"', "{}", '{"more": 1}', '{"columns": 3}', "\xff"]
)
def test_settings_that_are_damaged(tmp_path, name, content):
    run_folder.save_config(tmp_path, CONFIG, TABLE, {})
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config.json or table.json is damaged"):
        run_folder.load_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", "wide", "width must be an integer, got 'wide'$"),
        ("epochs", "three", "epochs must be a finite number or null, got 'three'$"),
        ("epochs", True, "epochs must be a finite number or null, got True"),
        ("seed", 1.5, "seed must be an integer, got 1.5"),
        ("skip", 1, "skip must be true or false, got 1"),
        ("members", "2", "members must be an integer or null, got '2'"),
        ("task", "both", "task must be 'classification' or 'regression' or null, got 'both'"),
        ("dept", 2, r"unknown name 'dept' \(did you mean 'depth'\?\)"),
        ("activation", "rlu", "relu"),
        ("dropout", 2, "rate"),
        ("depth", None, "depth must be an integer, got None"),
    ],
)
def test_settings_that_make_no_network_are_damaged(tmp_path, name, value, message):
    run_folder.save_config(tmp_path, CONFIG, TABLE, {})
    settings = json.loads((tmp_path / run_folder.CONFIG).read_text())
    write_json(tmp_path / run_folder.CONFIG, settings | {name: value})
    with pytest.raises(ValueError, match=f"is damaged: .*({message})"):
        run_folder.load_config(tmp_path)


SWEEP = {"data": "digits", "depth": 2, "width": "8", "learning_rate": "1,2", "random": None, "seeds": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": "x"}, "seeds must be an integer, got 'x'"),
        ({"dept": 2}, r"settings: unknown name 'dept' \(did you mean 'depth'\?\)"),
        ({"width": 256}, "width must be text or null, got 256"),
        ({"random": 1.5}, "random must be an integer or null, got 1.5"),
        ({"epochs": "three"}, "epochs must be a finite number or null, got 'three'"),
    ],
)
def test_the_settings_of_a_sweep_come_back_or_are_damaged(tmp_path, change, message):
    run_folder.save_sweep(tmp_path, SWEEP, {})
    assert run_folder.load_sweep(tmp_path) == SWEEP
    run_folder.save_sweep(tmp_path, SWEEP | change, {})
    with pytest.raises(ValueError, match=f"sweep.json is damaged: {message}"):
        run_folder.load_sweep(tmp_path)


@pytest.mark.parametrize("name", [run_folder.CONFIG, run_folder.SWEEP])
def test_a_run_or_a_sweep_that_is_resumed_anyway_is_recorded(tmp_path, name):
    write_json(tmp_path / name, {"seed": 1})
    assert not run_folder.resumed_anyway(tmp_path)
    for _ in range(2):
        run_folder.record_resumed_anyway(tmp_path)
        assert run_folder.resumed_anyway(tmp_path)
    assert json.loads((tmp_path / name).read_text()) == {"seed": 1, "resumed_anyway": True}


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "f", {"a": [1.5, float("nan"), {"b": float("-inf")}], "c": (float("inf"), 2, "nan")})
    assert json.loads((tmp_path / "f").read_text(), parse_constant=pytest.fail) == {
        "a": [1.5, None, {"b": None}],
        "c": [None, 2, "nan"],
    }
