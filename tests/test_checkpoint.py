"""Checkpoints: every tree comes back bit for bit, every damage is noticed, the last whole file is found."""

import json
import os
import pickle
import resource
import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from nnjax import losses, nn, optim, train
from nnjax.cli import run_folder
from nnjax.storage import checkpoint, tensor_file


class Pair(NamedTuple):
    first: Any
    second: Any


def bits(tree):
    """All that a tree of arrays is, keys and Python's numbers included."""
    described = []
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(getattr(leaf, "dtype", None) or np.int32, jax.dtypes.prng_key):
            described.append((str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()))
        elif isinstance(leaf, (bool, int, float)):
            described.append((type(leaf), repr(leaf)))
        else:
            described.append((np.asarray(leaf).dtype.name, np.shape(leaf), np.asarray(leaf).tobytes()))
    return jax.tree.structure(tree), described


def shapes(tree):
    """What `jax.eval_shape` would give; Python's numbers stay."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype) if hasattr(a, "dtype") else a, tree)


# There and back

DTYPES = [
    *("bool", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("int4", "uint4", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"),
]


@st.composite
def arrays(draw):
    """Arrays of any dtype and shape, with any bits."""
    dtype = jnp.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.just(()) | array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.name in ("bool", "int4", "uint4"):
        return rng.integers(0, 2, shape).astype(dtype)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


leaves = st.one_of(
    arrays(),
    arrays().map(lambda a: a.T if a.ndim > 1 else np.repeat(np.atleast_1d(a), 2)[::2]),
    st.builds(jax.random.key, st.integers(0, 9), impl=st.sampled_from(["threefry2x32", "rbg", "unsafe_rbg"])),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.just(None),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text('abwµ.0 "\\', max_size=3), inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.just(optax.EmptyState()),
    ),
    max_leaves=8,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints") / "a.safetensors"


@settings(max_examples=100, deadline=None)
@given(tree=trees, metadata=st.dictionaries(st.text(), plain, max_size=3))
def test_any_tree_comes_back_bit_for_bit(place, tree, metadata):
    checkpoint.save(place, tree, metadata)
    back, found = checkpoint.load(place, shapes(tree))
    assert bits(back) == bits(tree)
    assert found == metadata == checkpoint.read_metadata(place) == checkpoint.verify(place)
    for leaf in jax.tree.leaves(back):
        assert not isinstance(leaf, np.ndarray) or leaf.flags.writeable


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_all_bit_patterns_come_back(place, dtype):
    every = np.arange(2**16, dtype=np.uint16).view(dtype)  # each NaN with its payload, both zeros, all subnormals
    checkpoint.save(place, [every, jnp.asarray(every)], {})
    for back in checkpoint.load(place, [every, every])[0]:
        assert back.tobytes() == every.tobytes()


def test_keys_draw_the_same_afterwards(place):
    keys = {"one": jax.random.key(3), "many": jax.random.split(jax.random.key(4, impl="rbg"), (2, 3))}
    checkpoint.save(place, keys, {})
    back, _ = checkpoint.load(place, jax.eval_shape(lambda: keys))
    assert jax.random.normal(back["one"]) == jax.random.normal(keys["one"])
    assert jnp.array_equal(jax.random.bits(back["many"][1, 2]), jax.random.bits(keys["many"][1, 2]))
    assert back["many"].shape == (2, 3)


def test_arrays_in_the_other_byte_order_come_back_in_this_one(place):
    big = np.arange(6.0).reshape(2, 3).astype(">f4")
    checkpoint.save(place, big, {})
    back, _ = checkpoint.load(place, jnp.zeros((2, 3)))
    assert back.dtype == np.float32
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, big)


def make_run(optimizer=None, width=4):
    net = nn.serial(nn.dense(width), nn.batch_norm(), jax.nn.relu, nn.dropout(0.1), nn.dense(2))
    return train.Run(
        net, losses.squared_error, optimizer or optax.chain(optax.clip(1.0), optim.adam(1e-2)), batch_size=4
    )


DATA = (np.ones((8, 3), np.float32), np.zeros((8, 2), np.float32))


def ensemble(run, members=2):
    return jax.jit(jax.vmap(run.init, (0, None)))(jax.random.split(jax.random.key(0), members), DATA)


def test_a_run_and_an_ensemble_go_on_bit_for_bit(place):
    run = make_run()
    steps = jax.jit(jax.vmap(lambda ts: run.steps(ts, DATA, n=3)[0]))
    after = steps(ensemble(run))
    checkpoint.save(place, {"train": after, "best": None}, {"step": 3})
    back, _ = checkpoint.load(place, {"train": jax.eval_shape(lambda: ensemble(run)), "best": None})
    assert bits(back["train"]) == bits(after)
    assert bits(steps(back["train"])) == bits(steps(after))


def test_the_file_is_readable_by_safetensors_and_its_names_are_paths(place):
    ts = ensemble(make_run())
    checkpoint.save(place, {"train": ts}, {"µ": [1, None, "\ud800"]})
    found = safetensors.numpy.load_file(place)
    assert {"train/params/0/w", "train/params/1/scale", "train/state/1/mean", "train/step", "train/key"} < set(found)
    assert found["train/opt_state/1/mu/0/w"].shape == (2, 3, 4)
    np.testing.assert_array_equal(found["train/params/0/w"], ts.params[0]["w"])
    np.testing.assert_array_equal(found["train/key"], jax.random.key_data(ts.key))
    with safetensors.safe_open(place, "np") as file:
        notes = file.metadata()
    assert (notes["format"], notes["version"]) == ("nnjax-checkpoint", "1")
    assert json.loads(notes["metadata"]) == {"µ": [1, None, "\ud800"]}
    assert json.loads(notes["sha256"]).keys() == found.keys()
    assert json.loads(notes["dtypes"]) == {"train/key": "key threefry2x32"}
    assert json.loads(notes["empty"])["train/params/2"] == "()"


def test_leaves_are_aligned_for_readers_that_map_the_file(place):
    tree = {"a": np.ones(3, bool), "b": np.ones(3), "c": np.ones(3, np.uint16), "d": np.ones(3, np.float32)}
    checkpoint.save(place, tree, {})
    content = place.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % tree[name].itemsize == 0


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ("text", "a/0: numbers expected, got str of dtype <U4"),
        (np.array([{}]), "a/0: numbers expected, got ndarray of dtype object"),
        (len, "a/0: numbers expected, got builtin_function_or_method of dtype object"),
        (2**64, "a/0: numbers expected, got int of dtype object"),
    ],
    ids=["text", "objects", "function", "long"],
)
def test_what_is_no_number_is_not_saved(tmp_path, leaf, message):
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "a", {"a": [leaf]}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "tree", [{"a": {"b": 1}, "a/b": 2}, {"a": {"b": None}, "a/b": 2}, {"__metadata__": 1}], ids=str
)
def test_names_that_clash_are_not_saved(tmp_path, tree):
    with pytest.raises(ValueError, match=r"the name (a/b|__metadata__) of a leaf is taken; rename"):
        checkpoint.save(tmp_path / "a", tree, {})


def test_metadata_that_are_not_plain_are_not_saved(tmp_path):
    with pytest.raises(TypeError, match="float32 is not JSON serializable"):
        checkpoint.save(tmp_path / "a", {}, {"loss": np.float32(1)})


# Damage

SMALL = {
    "w": np.arange(4, dtype=np.float32),
    "k": jax.random.key(1),
    "z": np.complex128(1j),
    "n": None,
}


def flips(path):
    """Flip the bits of a file one after the other, and say in which byte."""
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for bit in range(8 * len(content)):
            byte = bit // 8
            os.pwrite(file.fileno(), bytes([content[byte] ^ 1 << bit % 8]), byte)
            yield byte
            os.pwrite(file.fileno(), content[byte : byte + 1], byte)


def test_every_single_flipped_bit_is_noticed_and_placed(place):
    checkpoint.save(place, SMALL, {"step": 7})
    whole = place.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    owner = {}
    for name, entry in json.loads(whole[8:start]).items():
        if name != "__metadata__":
            owner |= dict.fromkeys(range(*entry["data_offsets"]), name)
    assert sorted(set(owner.values())) == ["k", "w", "z"]
    for byte in flips(place):
        name = owner.get(byte - start)
        with pytest.raises(ValueError, match=r"a.safetensors is damaged") as caught:
            checkpoint.load(place, SMALL)
        if name is not None:
            assert f"the SHA-256 of {name} is not the one written" in str(caught.value)
            assert checkpoint.read_metadata(place) == {"step": 7}  # which reads no leaves
        elif byte % 5 == 0:
            with pytest.raises(ValueError, match=r"a.safetensors is damaged"):
                checkpoint.read_metadata(place)
    assert place.read_bytes() == whole
    checkpoint.load(place, SMALL)


def test_a_file_cut_short_anywhere_or_too_long_is_noticed(place):
    checkpoint.save(place, SMALL, {})
    whole = place.read_bytes()
    for content in [whole[:length] for length in range(len(whole))] + [whole + b"\0", whole + whole]:
        place.write_bytes(content)
        for read in (lambda path: checkpoint.load(path, SMALL), checkpoint.read_metadata, checkpoint.verify):
            with pytest.raises(ValueError, match=r"a.safetensors is damaged"):
                read(place)


def test_a_file_cut_short_names_the_first_leaf_that_is_not_whole(place):
    checkpoint.save(place, {"a": np.ones(10, np.float32), "b": np.ones(10, np.float32)}, {})
    whole = place.read_bytes()
    for lost, name in ((1, "b"), (40, "b"), (41, "a"), (80, "a")):
        place.write_bytes(whole[:-lost])
        with pytest.raises(ValueError, match=rf"is damaged: cut short in {name}, after {len(whole) - lost} bytes"):
            checkpoint.read_metadata(place)


def test_all_damaged_leaves_are_named(place):
    checkpoint.save(place, {"a": np.ones(10), "b": np.ones(10), "c": np.ones(10)}, {})
    whole = place.read_bytes()
    place.write_bytes(whole[:-240] + b"x" + whole[-239:-1] + b"x")
    with pytest.raises(ValueError, match=r"the SHA-256 of a, c is not the one written"):
        checkpoint.load(place, {})


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def a_safetensors_header(**entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


FOREIGN = {
    "pickle": pickle.dumps(Trap()),
    "empty": b"",
    "text": b"hello, world",
    "zip": b"PK\x03\x04" + b"\0" * 99,
    "long": b"\xff" * 8 + b"{}",
    "nested": (10**5).to_bytes(8, "little") + b"[" * 10**5,
    "list": (2).to_bytes(8, "little") + b"[]",
    "number": a_safetensors_header(a=1),
    "notes": a_safetensors_header(__metadata__=[1]),
    "dtype": a_safetensors_header(a={"dtype": "F99", "shape": [], "data_offsets": [0, 0]}),
    "negative": a_safetensors_header(a={"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}) + b"0",
    "size": a_safetensors_header(a={"dtype": "U8", "shape": [2], "data_offsets": [0, 1]}) + b"0",
    "hole": a_safetensors_header(a={"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}) + b"00",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_files_of_something_else_are_said_to_be_and_nothing_in_them_is_run(place, content):
    place.write_bytes(content)
    for read in (lambda path: checkpoint.load(path, {}), checkpoint.read_metadata, checkpoint.verify):
        with pytest.raises(ValueError, match=r"^/.*a.safetensors is damaged or no checkpoint of nnjax: "):
            read(place)


def test_other_safetensors_files_are_no_checkpoints(place):
    run_folder.save_weights(place, {"w": jnp.ones(2)}, ())
    with pytest.raises(
        ValueError, match=r"is no checkpoint of nnjax: its format is nnjax-weights, expected nnjax-check"
    ):
        checkpoint.load(place, {})
    for notes, said in ((None, "not named"), ({"format": "pt", "metadata": "{"}, "pt")):
        place.write_bytes(safetensors.numpy.save({"w": np.ones(2)}, notes))
        for read in (lambda path: checkpoint.load(path, {}), checkpoint.read_metadata, checkpoint.verify):
            with pytest.raises(
                ValueError, match=rf"is no checkpoint of nnjax: its format is {said}, expected nnjax-check"
            ):
                read(place)


def test_a_file_of_a_later_version_is_said_to_be(place, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "VERSION", 2)
        checkpoint.save(place, SMALL, {})
    with pytest.raises(ValueError, match="has version 2 of its format, known is 1; update nnjax"):
        checkpoint.load(place, SMALL)


def test_missing_files(tmp_path):
    for read in (lambda path: checkpoint.load(path, {}), checkpoint.read_metadata, checkpoint.verify):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read(tmp_path / "nowhere")


# Another structure


def test_another_network_is_answered_with_all_differences(place):
    checkpoint.save(place, {"train": ensemble(make_run())}, {})
    with pytest.raises(ValueError, match=r"a.safetensors is of another network or optimizer:\n") as caught:
        checkpoint.load(place, {"train": jax.eval_shape(lambda: ensemble(make_run(optim.sgd(0.1), width=5)))})
    lines = str(caught.value).splitlines()[1:]
    assert "  train/params/0/w: saved ((2, 3, 4), 'float32'), wanted ((2, 3, 5), 'float32')" in lines
    assert "  train/opt_state/1/mu/0/w: saved ((2, 3, 4), 'float32'), wanted nothing" in lines
    assert not any("train/params/4/b" in line for line in lines)


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        (np.float32(1), np.float64(1), r"\(the tree itself\): saved \(\(\), 'float32'\), wanted \(\(\), 'float64'\)"),
        ({"a": 1.0}, {"a": 1}, r"a: saved \(\(\), 'float64'\), wanted \(\(\), 'int64'\)"),
        (
            [jax.random.key(0)],
            [jax.random.key(0, impl="rbg")],
            r"0: saved \(\(\), 'key<fry>'\), wanted \(\(\), 'key<rbg>'",
        ),
        ([jax.random.key(0)], [jax.random.PRNGKey(0)], r"0: saved \(\(\), 'key<fry>'\), wanted \(\(2,\), 'uint32'"),
        ({"best": None}, {"best": jnp.ones(2)}, r"best: saved nothing, wanted \(\(2,\), 'float32'\)"),
        ({"best": None}, {"best": ()}, r"best: saved None, wanted \(\)"),
        ([optax.EmptyState()], [()], r"0: saved EmptyState\(\), wanted \(\)"),
        ([1], [1, {}], r"1: saved nothing, wanted \{\}"),
    ],
    ids=range(8),
)
def test_another_structure_is_answered_with_the_difference(place, saved, wanted, message):
    checkpoint.save(place, saved, {})
    with pytest.raises(ValueError, match=r"another network or optimizer:\n  " + message):
        checkpoint.load(place, wanted)


def test_the_structure_may_follow_from_the_metadata(place):
    checkpoint.save(place, {"log": np.arange(5)}, {"done": 5})
    back, _ = checkpoint.load(place, lambda metadata: {"log": jax.ShapeDtypeStruct((metadata["done"],), np.int64)})
    assert back["log"].tolist() == list(range(5))


# The latest


def written(path, *steps):
    for step in steps:
        checkpoint.save(checkpoint.step_path(path, step), {"w": np.full(3, step)}, {"step": step})
    return path


def damage(path, step, byte=-1):
    file = checkpoint.step_path(path, step)
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)


LIKE = {"w": np.zeros(3, int)}


def test_the_latest_is_the_one_of_the_last_step(tmp_path):
    written(tmp_path, 9, 10, 2, 10**12 - 1, 10**12)
    (tmp_path / ".step-000000000011.safetensors.123").write_bytes(b"half")
    (tmp_path / "step-11.safetensors").write_bytes(b"of somebody else")
    path, tree, metadata = checkpoint.latest(tmp_path, LIKE)
    assert (path.name, tree["w"].tolist(), metadata) == (
        "step-1000000000000.safetensors",
        [10**12] * 3,
        {"step": 10**12},
    )
    assert [checkpoint.step_of(file) for file in checkpoint.files(tmp_path)] == [2, 9, 10, 10**12 - 1, 10**12]


def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path):
    damage(written(tmp_path, 1, 2, 3), 3)
    with pytest.warns(
        UserWarning,
        match=r"/step-000000000003.safetensors is damaged: the SHA-256 of w is not the one written; "
        r"/.*/step-000000000002.safetensors is used instead",
    ):
        path, tree, metadata = checkpoint.latest(tmp_path, LIKE)
    assert (path, tree["w"].tolist(), metadata) == (checkpoint.step_path(tmp_path, 2), [2, 2, 2], {"step": 2})
    damage(tmp_path, 2, byte=9)
    with pytest.warns(
        UserWarning, match=r"03.safetensors is damaged.*02.safetensors is damaged.*01.safetensors is used"
    ):
        assert checkpoint.latest(tmp_path, LIKE)[2] == {"step": 1}
    damage(tmp_path, 1, byte=0)
    with pytest.raises(ValueError, match="holds no checkpoint that is whole:") as caught:
        checkpoint.latest(tmp_path, LIKE)
    *lines, last = str(caught.value).splitlines()[1:]
    assert [line.split(" is ")[0][-14:] for line in lines] == [f"{step}.safetensors" for step in ("03", "02", "01")]
    assert last == f"  delete {tmp_path} to begin again from the first step"


def test_another_network_is_no_damage(tmp_path):
    written(tmp_path, 1)
    checkpoint.save(checkpoint.step_path(tmp_path, 2), {"v": np.zeros(3, int)}, {})
    with pytest.raises(ValueError, match=r"02.safetensors is of another network"):
        checkpoint.latest(tmp_path, LIKE)


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path):
    written(tmp_path, 1)
    checkpoint.step_path(tmp_path, 2).mkdir()
    with pytest.warns(UserWarning, match=r"Is a directory.*; .*01.safetensors is used instead"):
        assert checkpoint.latest(tmp_path, LIKE)[2] == {"step": 1}


def test_no_checkpoints(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"holds no checkpoint$"):
            checkpoint.latest(path, LIKE)
        assert checkpoint.files(path) == []
    with pytest.raises(ValueError, match=r"step-1.safetensors is not named as a checkpoint is"):
        checkpoint.step_of(Path("step-1.safetensors"))


# Full disks


def test_a_full_disk_leaves_the_old_file_and_names_path_and_bytes(tmp_path):
    path = written(tmp_path, 1) / "step-000000000001.safetensors"
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the kernel's own refusal, after 100 kB
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoint.save(path, {"w": np.zeros(1_000_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (note,) = caught.value.__notes__
    assert note.startswith("while writing 8000")
    assert note.endswith(f"bytes to {path}")
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# Digests

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_the_digest_is_of_values_not_of_where_they_lie(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    same = [
        VALUES,
        jnp.asarray(VALUES),
        np.asfortranarray(VALUES),
        np.repeat(VALUES, 2, 0)[::2],
        VALUES.astype(">f4"),
        np.load(tmp_path / "a.npy", mmap_mode="r"),
    ]
    assert len({checkpoint.digest({"x": array}) for array in same}) == 1
    assert len(checkpoint.digest(None)) == 64


def test_the_digest_differs_where_anything_differs():
    a, bit = VALUES, VALUES.copy()
    bit.view(np.uint32)[1, 2, 3] ^= 1
    different = [
        {"x": a}, {"y": a}, {"x": bit}, {"x": a.reshape(6, 4)}, {"x": a.view(np.int32)}, {"x": a, "y": a},
        {"x": {"y": a}}, [a, bit], [bit, a], a, None, np.zeros((0, 2)), np.zeros((0, 3)), np.float32(0.0),
        np.float32(-0.0), jax.random.key(0), jax.random.key(1), jax.random.key_data(jax.random.key(0)),
    ]  # fmt: skip
    assert len({checkpoint.digest(tree) for tree in different}) == len(different)


@settings(max_examples=50, deadline=None)
@given(array=arrays(), piece=st.integers(1, 100))
def test_the_digest_does_not_depend_on_the_size_of_its_pieces(array, piece):
    wanted = checkpoint.digest(array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_file, "PIECE", piece)
        assert checkpoint.digest(array.copy("F")) == wanted
        assert checkpoint.digest(np.repeat(np.atleast_1d(array), 2, 0)[::2].reshape(array.shape)) == wanted


def test_the_digest_copies_little(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "PIECE", 1 << 16)
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (4000, 500))  # 8 MB
    for array in (mapped, mapped[:, ::2], np.ones((4000, 500), ">f4"), np.ones((500, 4000), np.float32)):
        tracemalloc.start()
        checkpoint.digest({"x": array})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 19


# Weights


def test_every_flipped_bit_of_weights_is_noticed(place):
    params, state = {"w": jnp.arange(4.0), "b": jnp.ones(1)}, {"mean": jnp.zeros(2)}
    run_folder.save_weights(place, params, state)
    said = []
    for _ in flips(place):
        with pytest.raises(ValueError, match=r"a.safetensors is damaged") as caught:
            run_folder.load_weights(place, params, state)
        said.append(str(caught.value))
    assert said[-1].endswith("is damaged: the SHA-256 of state/mean is not the one written")
    assert bits(run_folder.load_weights(place, params, state)) == bits((params, state))


def test_weights_are_readable_by_safetensors_and_theirs_by_us(place):
    params = {"w": jnp.arange(4.0), "b": jnp.ones((1, 2), jnp.int32)}
    run_folder.save_weights(place, params, ())
    found = safetensors.numpy.load_file(place)
    assert {name: array.tolist() for name, array in found.items()} == {"params/w": [0, 1, 2, 3], "params/b": [[1, 1]]}
    place.write_bytes(safetensors.numpy.save(found, {"format": "pt", "metadata": "["}))
    assert bits(run_folder.load_weights(place, params, ())) == bits((params, ()))
