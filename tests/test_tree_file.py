"""Any pytree comes back from a file bitwise, and what is not the saved tree is refused."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nnjax
from nnjax import nn


class Pair(NamedTuple):
    a: Any
    b: Any


TREES = {
    "network": nn.named(body=nn.mlp([3], 2, norm="batch"), head=nn.dense(2)).init(jax.random.key(0), jnp.ones((2, 4))),
    "numbers": {"int": 3, "float": 0.5, "bool": True},
    "dtypes": {"bf": jnp.ones((2, 3), jnp.bfloat16), "u8": jnp.arange(5, dtype=jnp.uint8), "c": jnp.ones(2) * 1j},
    "keys": Pair(jax.random.key(3), jax.random.split(jax.random.key(0), 2)),
    "empty": {"none": None, "tuple": (), "list": [[], {}], "zero": jnp.zeros((0, 3))},
    "one array": jnp.arange(3.0),
    "nothing": (),
    "special": jnp.array([np.nan, -0.0, np.inf, 1e-45]),
}


def bits(tree):
    def leaf_bits(leaf):
        if isinstance(leaf, (bool, int, float)):
            return type(leaf), leaf
        array = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return str(leaf.dtype), leaf.shape, np.asarray(array).tobytes()

    return jax.tree.structure(tree), [leaf_bits(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_comes_back_bitwise(tree, tmp_path):
    nnjax.save(tmp_path / "tree", tree)
    assert bits(nnjax.load(tmp_path / "tree", like=tree)) == bits(tree)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_without_a_structure_it_is_dictionaries_with_the_same_paths(tree, tmp_path):
    nnjax.save(tmp_path / "tree", tree)
    loaded = nnjax.load(tmp_path / "tree")
    assert {path: np.shape(leaf) for path, leaf in nn.paths(loaded).items()} == {
        path: np.shape(leaf) for path, leaf in nn.paths(tree).items()
    }


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "tree"
    nnjax.save(path, {"w": jnp.arange(4.0), "b": jnp.zeros(2)})
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            nnjax.load(path)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}, r"w: saved .*\(3, 2\).*, expected .*\(2, 3\)"),
        ({"w": jnp.zeros((3, 2), jnp.bfloat16), "b": jnp.zeros(3)}, "bfloat16"),
        ({"w": jnp.zeros((3, 2))}, "b: saved .*expected nothing"),
        ({"w": jnp.zeros((3, 2)), "b": jnp.zeros(3), "c": ()}, r"c: saved nothing, expected \(\)"),
    ],
)
def test_another_structure_is_refused(like, message, tmp_path):
    nnjax.save(tmp_path / "tree", {"w": jnp.zeros((3, 2)), "b": jnp.zeros(3)})
    with pytest.raises(ValueError, match=message):
        nnjax.load(tmp_path / "tree", like=like)


def test_shapes_are_enough_as_structure(tmp_path):
    net = nn.mlp([8], 10)
    params, _ = net.init(jax.random.key(0), jnp.ones((1, 64)))
    nnjax.save(tmp_path / "net", params)
    shapes, _ = jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 64)))
    chex.assert_trees_all_equal(nnjax.load(tmp_path / "net", like=shapes), params, strict=True)


def test_64_bits_are_not_cast(tmp_path):
    with jax.enable_x64(True):
        nnjax.save(tmp_path / "tree", {"w": jnp.ones(2)})
        assert nnjax.load(tmp_path / "tree")["w"].dtype == jnp.float64
    with pytest.raises(ValueError, match=r"contains float64.*enable_x64"):
        nnjax.load(tmp_path / "tree")


def test_other_programs_read_it_and_are_read(tmp_path):
    nnjax.save(tmp_path / "ours", {"a": [jnp.arange(3.0)]})
    np.testing.assert_array_equal(load_file(tmp_path / "ours")["a/0"], np.arange(3.0, dtype=np.float32))
    save_file({"layer.weight": np.ones((2, 3), np.float32)}, tmp_path / "theirs")
    assert nnjax.load(tmp_path / "theirs")["layer.weight"].shape == (2, 3)


def test_home_is_expanded_and_a_missing_file_or_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    nnjax.save("~/tree", {"w": jnp.ones(1)})
    assert Path(tmp_path / "tree").is_file()
    assert nnjax.load("~/tree")["w"].shape == (1,)
    with pytest.raises(FileNotFoundError, match="~nobody-of-this-name"):
        nnjax.load("~nobody-of-this-name/tree")
    with pytest.raises(FileNotFoundError, match="nothing"):
        nnjax.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        nnjax.save(tmp_path / "nowhere" / "tree", {"w": jnp.ones(1)})
    with pytest.raises(ValueError, match="a/b"):
        nnjax.save(tmp_path / "tree", {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
    with pytest.raises(TypeError, match="expected numbers"):
        nnjax.save(tmp_path / "tree", {"a": "text"})
