"""Checkpoints restore any tree bitwise, detect any damage, and find the newest intact file."""

import hashlib
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
from nnjax.storage import checkpoint, tensor_file


class Pair(NamedTuple):
    first: Any
    second: Any


def bits(tree):
    """Describe a tree of arrays, random keys and Python numbers completely."""
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
    """Replace arrays by their shapes, as `jax.eval_shape` does; keep Python numbers."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype) if hasattr(a, "dtype") else a, tree)


# Saving and loading

DTYPES = [
    *("bool", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("int4", "uint4", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"),
]


@st.composite
def arrays(draw):
    """Draw arrays of any dtype and shape, with any bits."""
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
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints") / "a.safetensors"


@settings(max_examples=100, deadline=None)
@given(tree=trees, metadata=st.dictionaries(st.text(), plain, max_size=3))
def test_any_tree_is_restored_bitwise(path, tree, metadata):
    checkpoint.save(path, tree, metadata)
    restored, found = checkpoint.load(path, shapes(tree))
    assert bits(restored) == bits(tree)
    assert found == metadata == checkpoint.read_metadata(path) == checkpoint.verify(path)
    for leaf in jax.tree.leaves(restored):
        assert not isinstance(leaf, np.ndarray) or leaf.flags.writeable


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_all_bit_patterns_of_16_bits_are_restored(path, dtype):
    patterns = np.arange(2**16, dtype=np.uint16).view(dtype)  # NaN payloads, both zeros, all subnormals
    checkpoint.save(path, [patterns, jnp.asarray(patterns)], {})
    for restored in checkpoint.load(path, [patterns, patterns])[0]:
        assert restored.tobytes() == patterns.tobytes()


def test_restored_keys_draw_the_same_numbers(path):
    keys = {"single": jax.random.key(3), "many": jax.random.split(jax.random.key(4, impl="rbg"), (2, 3))}
    checkpoint.save(path, keys, {})
    restored, _ = checkpoint.load(path, jax.eval_shape(lambda: keys))
    assert jax.random.normal(restored["single"]) == jax.random.normal(keys["single"])
    assert jnp.array_equal(jax.random.bits(restored["many"][1, 2]), jax.random.bits(keys["many"][1, 2]))
    assert restored["many"].shape == (2, 3)


def test_big_endian_arrays_are_restored_little_endian(path):
    big = np.arange(6.0).reshape(2, 3).astype(">f4")
    checkpoint.save(path, big, {})
    restored, _ = checkpoint.load(path, jnp.zeros((2, 3)))
    assert restored.dtype == np.float32
    assert restored.dtype.isnative
    np.testing.assert_array_equal(restored, big)


def make_run(optimizer=None, width=4):
    net = nn.serial(nn.dense(width), nn.batch_norm(), jax.nn.relu, nn.dropout(0.1), nn.dense(2))
    return train.Run(
        net, losses.squared_error, optimizer or optax.chain(optax.clip(1.0), optim.adam(1e-2)), batch_size=4
    )


DATA = (np.ones((8, 3), np.float32), np.zeros((8, 2), np.float32))


def ensemble(run, members=2):
    return jax.jit(jax.vmap(run.init, (0, None)))(jax.random.split(jax.random.key(0), members), DATA)


def test_a_restored_ensemble_continues_bitwise(path):
    run = make_run()
    steps = jax.jit(jax.vmap(lambda ts: run.steps(ts, DATA, n=3)[0]))
    after = steps(ensemble(run))
    checkpoint.save(path, {"train": after, "best": None}, {"step": 3})
    restored, _ = checkpoint.load(path, {"train": jax.eval_shape(lambda: ensemble(run)), "best": None})
    assert bits(restored["train"]) == bits(after)
    assert bits(steps(restored["train"])) == bits(steps(after))


def test_safetensors_reads_the_file_with_paths_as_names(path):
    ts = ensemble(make_run())
    checkpoint.save(path, {"train": ts}, {"µ": [1, None, "\ud800"]})
    found = safetensors.numpy.load_file(path)
    assert {"train/params/0/w", "train/params/1/scale", "train/state/1/mean", "train/step", "train/key"} < set(found)
    assert found["train/opt_state/1/mu/0/w"].shape == (2, 3, 4)
    np.testing.assert_array_equal(found["train/params/0/w"], ts.params[0]["w"])
    np.testing.assert_array_equal(found["train/key"], jax.random.key_data(ts.key))
    with safetensors.safe_open(path, "np") as file:
        notes = file.metadata()
    assert (notes["format"], notes["version"]) == ("nnjax-checkpoint", "1")
    assert json.loads(notes["metadata"]) == {"µ": [1, None, "\ud800"]}
    assert json.loads(notes["sha256"]).keys() == found.keys()
    assert json.loads(notes["dtypes"]) == {"train/key": "key threefry2x32"}
    assert json.loads(notes["empty"])["train/params/2"] == "()"


def test_leaves_are_aligned_for_memory_mapping(path):
    tree = {"a": np.ones(3, bool), "b": np.ones(3), "c": np.ones(3, np.uint16), "d": np.ones(3, np.float32)}
    checkpoint.save(path, tree, {})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % tree[name].itemsize == 0


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ("text", "a/0: expected numbers, got str of dtype <U4"),
        (np.array([{}]), "a/0: expected numbers, got ndarray of dtype object"),
        (len, "a/0: expected numbers, got builtin_function_or_method of dtype object"),
        (2**64, "a/0: expected numbers, got int of dtype object"),
    ],
    ids=["text", "objects", "function", "long"],
)
def test_leaves_that_are_not_numeric_are_refused(tmp_path, leaf, message):
    with pytest.raises(TypeError, match=message):
        checkpoint.save(tmp_path / "a", {"a": [leaf]}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "tree", [{"a": {"b": 1}, "a/b": 2}, {"a": {"b": None}, "a/b": 2}, {"__metadata__": 1}], ids=str
)
def test_duplicate_names_are_refused(tmp_path, tree):
    with pytest.raises(ValueError, match=r"the leaf name (a/b|__metadata__) is taken; rename the key"):
        checkpoint.save(tmp_path / "a", tree, {})


def test_metadata_that_json_cannot_represent_are_refused(tmp_path):
    with pytest.raises(TypeError, match="float32 is not JSON serializable"):
        checkpoint.save(tmp_path / "a", {}, {"loss": np.float32(1)})


# Damage

READERS = [lambda path: checkpoint.load(path, {}), checkpoint.read_metadata, checkpoint.verify]
SMALL = {
    "w": np.arange(4, dtype=np.float32),
    "k": jax.random.key(1),
    "z": np.complex128(1j),
    "n": None,
}


def flips(path):
    """Flip one bit of a file after another, and yield its byte."""
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for bit in range(8 * len(content)):
            byte = bit // 8
            os.pwrite(file.fileno(), bytes([content[byte] ^ 1 << bit % 8]), byte)
            yield byte
            os.pwrite(file.fileno(), content[byte : byte + 1], byte)


def test_every_flipped_bit_is_detected_and_its_leaf_named(path):
    checkpoint.save(path, SMALL, {"step": 7})
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    owner = {}
    for name, entry in json.loads(whole[8:start]).items():
        if name != "__metadata__":
            owner |= dict.fromkeys(range(*entry["data_offsets"]), name)
    assert sorted(set(owner.values())) == ["k", "w", "z"]
    for byte in flips(path):
        name = owner.get(byte - start)
        with pytest.raises(ValueError, match=r"a.safetensors is damaged") as caught:
            checkpoint.load(path, SMALL)
        if name is not None:
            assert f"SHA-256 mismatch in {name}" in str(caught.value)
            assert checkpoint.read_metadata(path) == {"step": 7}  # reads no leaves
        elif byte % 5 == 0:
            with pytest.raises(ValueError, match=r"a.safetensors is damaged"):
                checkpoint.read_metadata(path)
    assert path.read_bytes() == whole
    checkpoint.load(path, SMALL)


def test_a_truncated_or_too_long_file_is_detected(path):
    checkpoint.save(path, SMALL, {})
    whole = path.read_bytes()
    for content in [whole[:length] for length in range(len(whole))] + [whole + b"\0", whole + whole]:
        path.write_bytes(content)
        for read in READERS:
            with pytest.raises(ValueError, match=r"a.safetensors is damaged"):
                read(path)


def test_the_first_truncated_leaf_is_named(path):
    checkpoint.save(path, {"a": np.ones(10, np.float32), "b": np.ones(10, np.float32)}, {})
    whole = path.read_bytes()
    for lost, name in ((1, "b"), (40, "b"), (41, "a"), (80, "a")):
        path.write_bytes(whole[:-lost])
        with pytest.raises(ValueError, match=rf"is damaged: truncated in {name}, after {len(whole) - lost} bytes"):
            checkpoint.read_metadata(path)


def test_all_damaged_leaves_are_named(path):
    checkpoint.save(path, {"a": np.ones(10), "b": np.ones(10), "c": np.ones(10)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-240] + b"x" + whole[-239:-1] + b"x")
    with pytest.raises(ValueError, match=r"SHA-256 mismatch in a, c$"):
        checkpoint.load(path, {})


class FailWhenUnpickled:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def safetensors_header(**entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


FOREIGN = {
    "pickle": pickle.dumps(FailWhenUnpickled()),
    "empty": b"",
    "text": b"hello, world",
    "zip": b"PK\x03\x04" + b"\0" * 99,
    "long": b"\xff" * 8 + b"{}",
    "nested": (10**5).to_bytes(8, "little") + b"[" * 10**5,
    "list": (2).to_bytes(8, "little") + b"[]",
    "number": safetensors_header(a=1),
    "notes": safetensors_header(__metadata__=[1]),
    "dtype": safetensors_header(a={"dtype": "F99", "shape": [], "data_offsets": [0, 0]}),
    "negative": safetensors_header(a={"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}) + b"0",
    "size": safetensors_header(a={"dtype": "U8", "shape": [2], "data_offsets": [0, 1]}) + b"0",
    "hole": safetensors_header(a={"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}) + b"00",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_refused_and_never_executed(path, content):
    path.write_bytes(content)
    for read in READERS:
        with pytest.raises(ValueError, match=r"^/.*a.safetensors is damaged or not a safetensors file: "):
            read(path)


def test_other_safetensors_files_are_refused(path):
    weights = b"".join(tensor_file.serialize({"w": jnp.ones(2)}, "nnjax-weights", {}))
    for content, format in (
        (weights, "nnjax-weights"),
        (safetensors.numpy.save({"w": np.ones(2)}), "unknown"),
        (safetensors.numpy.save({"w": np.ones(2)}, {"format": "pt", "metadata": "{"}), "pt"),
    ):
        path.write_bytes(content)
        for read in READERS:
            with pytest.raises(ValueError, match=f"is not an nnjax checkpoint: got format {format}, expected nnjax-ch"):
                read(path)


def test_a_later_format_version_is_refused(path):
    checkpoint.save(path, {"w": np.ones(2)}, {})
    content = path.read_bytes().replace(b'"version":"1"', b'"version":"2"')
    length = int.from_bytes(content[:8], "little")
    checksum = json.loads(content[8 : 8 + length])["__metadata__"]["checksum"].encode()
    header = hashlib.sha256(content[8 : 8 + length].replace(checksum, b"0" * 64)).hexdigest().encode()
    path.write_bytes(content.replace(checksum, header))
    with pytest.raises(ValueError, match="has format version 2, expected 1; update nnjax"):
        checkpoint.load(path, {"w": np.ones(2)})


def test_missing_files(tmp_path):
    for read in READERS:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read(tmp_path / "nowhere")


# A different structure


def test_all_differences_to_another_network_are_listed(path):
    checkpoint.save(path, {"train": ensemble(make_run())}, {})
    with pytest.raises(ValueError, match=r"a.safetensors does not have the expected arrays:\n") as caught:
        checkpoint.load(path, {"train": jax.eval_shape(lambda: ensemble(make_run(optim.sgd(0.1), width=5)))})
    lines = str(caught.value).splitlines()[1:]
    assert "  train/params/0/w: saved ((2, 3, 4), 'float32'), expected ((2, 3, 5), 'float32')" in lines
    assert "  train/opt_state/1/mu/0/w: saved ((2, 3, 4), 'float32'), expected nothing" in lines
    assert not any("train/params/4/b" in line for line in lines)


@pytest.mark.parametrize(
    ("saved", "expected", "message"),
    [
        (np.float32(1), np.float64(1), r"\(the tree itself\): saved \(\(\), 'float32'\), expected \(\(\), 'float64'\)"),
        ({"a": 1.0}, {"a": 1}, r"a: saved \(\(\), 'float64'\), expected \(\(\), 'int64'\)"),
        (
            [jax.random.key(0)],
            [jax.random.key(0, impl="rbg")],
            r"0: saved \(\(\), 'key<fry>'\), expected \(\(\), 'key<rbg>'",
        ),
        ([jax.random.key(0)], [jax.random.PRNGKey(0)], r"0: saved \(\(\), 'key<fry>'\), expected \(\(2,\), 'uint32'"),
        ({"best": None}, {"best": jnp.ones(2)}, r"best: saved nothing, expected \(\(2,\), 'float32'\)"),
        ({"best": None}, {"best": ()}, r"best: saved None, expected \(\)"),
        ([optax.EmptyState()], [()], r"0: saved EmptyState\(\), expected \(\)"),
        ([1], [1, {}], r"1: saved nothing, expected \{\}"),
    ],
    ids=range(8),
)
def test_a_difference_in_structure_is_named(path, saved, expected, message):
    checkpoint.save(path, saved, {})
    with pytest.raises(ValueError, match=r"have the expected arrays:\n  " + message):
        checkpoint.load(path, expected)


def test_the_structure_can_depend_on_the_metadata(path):
    checkpoint.save(path, {"log": np.arange(5)}, {"done": 5})
    restored, _ = checkpoint.load(path, lambda metadata: {"log": jax.ShapeDtypeStruct((metadata["done"],), np.int64)})
    assert restored["log"].tolist() == list(range(5))


# The latest checkpoint


def write_steps(folder, *steps):
    for step in steps:
        checkpoint.save(checkpoint.step_path(folder, step), {"w": np.full(3, step)}, {"step": step})
    return folder


def damage(folder, step, byte=-1):
    file = checkpoint.step_path(folder, step)
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)


LIKE = {"w": np.zeros(3, int)}


def test_the_latest_checkpoint_has_the_largest_step(tmp_path):
    write_steps(tmp_path, 9, 10, 2, 10**12 - 1, 10**12)
    (tmp_path / ".step-000000000011.safetensors.123").write_bytes(b"half")
    (tmp_path / "step-11.safetensors").write_bytes(b"unrelated")
    path, tree, metadata = checkpoint.latest(tmp_path, LIKE)
    assert (path.name, tree["w"].tolist(), metadata) == (
        "step-1000000000000.safetensors",
        [10**12] * 3,
        {"step": 10**12},
    )
    assert [checkpoint.step_of(file) for file in checkpoint.files(tmp_path)] == [2, 9, 10, 10**12 - 1, 10**12]


def test_damaged_checkpoints_are_skipped_with_a_warning(tmp_path):
    damage(write_steps(tmp_path, 1, 2, 3), 3)
    with pytest.warns(
        UserWarning,
        match=r"/step-000000000003.safetensors is damaged: SHA-256 mismatch in w; "
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
    with pytest.raises(ValueError, match="holds no intact checkpoint:") as caught:
        checkpoint.latest(tmp_path, LIKE)
    *lines, last = str(caught.value).splitlines()[1:]
    assert [line.split(" is ")[0][-14:] for line in lines] == [f"{step}.safetensors" for step in ("03", "02", "01")]
    assert last == f"  delete {tmp_path} to start again from step 0"


def test_a_different_network_is_an_error_not_damage(tmp_path):
    write_steps(tmp_path, 1)
    checkpoint.save(checkpoint.step_path(tmp_path, 2), {"v": np.zeros(3, int)}, {})
    with pytest.raises(ValueError, match=r"02.safetensors does not have the expected arrays"):
        checkpoint.latest(tmp_path, LIKE)


def test_an_unreadable_file_is_skipped_with_a_warning(tmp_path):
    write_steps(tmp_path, 1)
    checkpoint.step_path(tmp_path, 2).mkdir()
    message = r"is not a regular file, but a folder, a pipe or a device; .*01.safetensors is used instead"
    with pytest.warns(UserWarning, match=message):
        assert checkpoint.latest(tmp_path, LIKE)[2] == {"step": 1}


def test_no_checkpoints(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"holds no checkpoint$"):
            checkpoint.latest(path, LIKE)
        assert checkpoint.files(path) == []
    with pytest.raises(ValueError, match=r"step-1.safetensors is not named like a checkpoint, such as"):
        checkpoint.step_of(Path("step-1.safetensors"))


# A full disk


def test_a_full_disk_keeps_the_old_file_and_the_error_names_path_and_bytes(tmp_path):
    path = write_steps(tmp_path, 1) / "step-000000000001.safetensors"
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the kernel refuses to write after 100 kB
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


def test_the_digest_does_not_depend_on_the_memory_layout(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    layouts = [
        VALUES,
        jnp.asarray(VALUES),
        np.asfortranarray(VALUES),
        np.repeat(VALUES, 2, 0)[::2],
        VALUES.astype(">f4"),
        np.load(tmp_path / "a.npy", mmap_mode="r"),
    ]
    assert len({checkpoint.digest({"x": array}) for array in layouts}) == 1
    assert len(checkpoint.digest(None)) == 64


def test_the_digest_depends_on_paths_dtypes_shapes_and_bytes():
    a, bit = VALUES, VALUES.copy()
    bit.view(np.uint32)[1, 2, 3] ^= 1
    different = [
        {"x": a}, {"y": a}, {"x": bit}, {"x": a.reshape(6, 4)}, {"x": a.view(np.int32)}, {"x": a, "y": a},
        {"x": {"y": a}}, [a, bit], [bit, a], a, None, np.zeros((0, 2)), np.zeros((0, 3)), np.float32(0.0),
        np.float32(-0.0), jax.random.key(0), jax.random.key(1), jax.random.key_data(jax.random.key(0)),
    ]  # fmt: skip
    assert len({checkpoint.digest(tree) for tree in different}) == len(different)


@pytest.mark.parametrize("shape", [(2000, 6000), (3, 4_000_001)], ids=["short rows", "rows larger than a chunk"])
def test_the_digest_of_large_arrays_copies_at_most_a_chunk(tmp_path, shape):
    values = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, shape)  # 48 MB
    values[...] = np.arange(shape[1])
    expected = checkpoint.digest({"x": values})
    for array in (values, np.asfortranarray(values), np.repeat(values, 2, 0)[::2], values.astype(">f4")):
        tracemalloc.start()
        assert checkpoint.digest({"x": array}) == expected
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20e6


# Other safetensors files


def test_files_of_the_safetensors_package_can_be_read(path):
    tree = {"w": np.arange(4.0, dtype=np.float32), "b": np.ones((1, 2), np.int32)}
    path.write_bytes(safetensors.numpy.save(tree, {"format": "pt", "metadata": "["}))
    leaves, header = tensor_file.read(path)
    assert bits(tensor_file.restore_structure(tree, leaves, header.empty, "")) == bits(tree)
