"""Exported networks: any batch size, any platform, loaded by JAX alone, damage is noticed."""

import json
import subprocess
import sys
from zipfile import BadZipFile, ZipFile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import LAYERS, over

from nnjax import interop, losses, nn, optim, train
from nnjax.interop.export import PLATFORMS, trace

KEY = jax.random.key(0)
IMAGES = jnp.linspace(-1, 1, 4 * 64).reshape(4, 8, 8, 1)
NETWORKS = {
    "mlp": (nn.mlp([8], 3, norm="batch", dropout=0.1), IMAGES),
    "convolutions": (nn.serial(nn.conv(2, 3), nn.max_pool(2), nn.flatten(), nn.dense(3)), IMAGES),
    "language model": (nn.language_model(5, 8, 1, 2), jnp.arange(12).reshape(4, 3) % 5),
    "recurrent": (nn.lstm(3, last=True), nn.Sequences(IMAGES[:, :, :, 0], jnp.array([8, 1, 5, 2]))),
    "two inputs": (nn.as_layer(lambda x: {"sum": x["a"] + x["b"], "a": x["a"]}), {"a": IMAGES, "b": IMAGES}),
    "two outputs": (nn.serial(nn.flatten(), nn.dense(4), lambda y: tuple(jnp.split(y, 2, -1))), IMAGES),
}
LOAD = """
from zipfile import ZipFile
import sys
import jax.export
import numpy as np

network = jax.export.deserialize(ZipFile("net.zip").read("network"))
inputs = np.load("inputs.npz")
x = jax.tree.unflatten(jax.tree.structure(network.in_tree.unflatten(range(network.in_tree.num_leaves))[0][0]),
                       [inputs[f"arr_{i}"] for i in range(len(inputs))])
y = network.call(x)
assert not any(name.startswith("nnjax") for name in sys.modules)
np.savez("outputs.npz", *jax.tree.leaves(y))
"""


def case_input(case):
    if case.integers:
        return jnp.arange(np.prod(case.shape), dtype=jnp.int32).reshape(case.shape) % 5
    return jax.random.normal(KEY, case.shape)


def load(path):
    return jax.export.deserialize(ZipFile(path).read("network"))


@over(LAYERS)
def test_every_layer_is_lowered_for_any_batch_size_and_platform(case):
    x = case_input(case)
    params, state = case.layer.init(KEY, x)
    with jax.numpy_dtype_promotion("standard"):
        exported = trace(case.layer, params, state, x, members=False, platforms=PLATFORMS)
    assert exported.platforms == PLATFORMS
    output = case.layer.apply(params, state, x, train=False)[0]
    assert str(exported.out_avals[0].shape[0]).endswith("batch")
    assert exported.out_avals[0].shape[1:] == output.shape[1:]


@pytest.mark.parametrize("name", NETWORKS)
def test_file_gives_the_outputs_of_the_network(name, tmp_path):
    pytest.importorskip("flatbuffers")
    net, x = NETWORKS[name]
    params, state = net.init(KEY, x)
    interop.export(tmp_path / "net.zip", net, params, state, x)
    network = load(tmp_path / "net.zip")
    for times in (1, 3):
        batch = jax.tree.map(lambda a, times=times: jnp.concatenate([a] * times), x)
        plain = tuple(batch) if isinstance(batch, nn.Sequences) else batch
        outputs, expected = network.call(plain), net.apply(params, state, batch, train=False)[0]
        assert jax.tree.map(jnp.shape, outputs) == jax.tree.map(jnp.shape, expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), outputs, expected)


def test_file_is_loaded_without_nnjax(tmp_path):
    pytest.importorskip("flatbuffers")
    net, x = NETWORKS["mlp"]
    params, state = net.init(KEY, x)
    interop.export(tmp_path / "net.zip", net, params, state, x)
    np.savez(tmp_path / "inputs.npz", np.concatenate([x, x, x]))
    subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, check=True)
    expected = net.apply(params, state, jnp.concatenate([x, x, x]), train=False)[0]
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npz")["arr_0"], expected, rtol=1e-5, atol=1e-6)


def test_ensemble_of_a_run(tmp_path):
    pytest.importorskip("flatbuffers")
    x, y = IMAGES.reshape(4, 64), jnp.arange(4) % 3
    run = train.Run(nn.mlp([8], 3, norm="batch"), losses.cross_entropy, optim.adam(1e-2), batch_size=2)
    result = train.fit(run, (x, y), epochs=1, members=2, progress=False)
    interop.export(tmp_path / "net.zip", run, result.ts.params, result.ts.state, x, members=True)
    expected = jax.vmap(run.predict, in_axes=(0, 0, None))(result.ts.params, result.ts.state, x)
    np.testing.assert_allclose(load(tmp_path / "net.zip").call(x), expected, rtol=1e-5, atol=1e-6)


def test_metadata_and_equal_files(tmp_path):
    pytest.importorskip("flatbuffers")
    net, x = NETWORKS["mlp"]
    params, state = net.init(KEY, x)
    for name in ("a.zip", "b.zip"):
        interop.export(tmp_path / name, net, params, state, x, platforms=("cpu", "cuda"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert {entry.date_time[0] for entry in ZipFile(tmp_path / "a.zip").infolist()} == {1980}  # files have no times
    metadata = json.loads(ZipFile(tmp_path / "a.zip").read("metadata.json"))
    exported = load(tmp_path / "a.zip")
    assert metadata["calling_convention_version"] == exported.calling_convention_version
    assert metadata["platforms"] == list(exported.platforms) == ["cpu", "cuda"]
    assert metadata["inputs"] == ["float32[batch,8,8,1]"]
    assert metadata["outputs"] == ["float32[batch,3]"]
    assert (metadata["jax"], metadata["version"], metadata["members"]) == (jax.__version__, 1, False)


def test_damage_is_noticed(tmp_path):
    pytest.importorskip("flatbuffers")
    net, x = NETWORKS["mlp"]
    path = tmp_path / "net.zip"
    interop.export(path, net, *net.init(KEY, x), x)
    content = bytearray(path.read_bytes())
    for position in np.random.default_rng(0).integers(100, len(content) * 9 // 10, 20):
        damaged = content.copy()
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BadZipFile, match="Bad CRC-32"):
            load(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadZipFile):
        load(path)


def test_network_that_needs_a_fixed_batch_is_refused(tmp_path):
    def apply(params, state, x, *, train, key=None):
        return (x if x.shape[0] > 3 else 2 * x), state

    net = nn.Layer("branches", lambda key, x: ((), ()), apply)
    with pytest.raises(Exception, match=r"'batch' > '3' is inconclusive") as error:
        interop.export(tmp_path / "net.zip", net, (), (), IMAGES)
    assert "in the export of branches, for batches (batch, ...) of any size" in error.value.__notes__
    assert not (tmp_path / "net.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"platforms": "cpu"}, r"export: platforms must be a sequence such as \(.cpu., .cuda.\), got .cpu."),
        ({"members": 2}, "export: members must be"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path):
    net, x = NETWORKS["mlp"]
    with pytest.raises(TypeError, match=message):
        interop.export(tmp_path / "net.zip", net, *net.init(KEY, x), x, **arguments)
