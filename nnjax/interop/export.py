"""Export a network to one file that runs without nnjax."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export

from nnjax import checks
from nnjax._version import __version__
from nnjax.nn import as_layer
from nnjax.storage.atomic_write import write_file
from nnjax.train import Run
from nnjax.types import Layer, LayerLike, Params, PyTree, State

PLATFORMS = ("cpu", "cuda", "tpu")
FORMAT, VERSION = "nnjax-export", 1


def export(
    path: str | Path,
    net: LayerLike | Run,
    params: Params,
    state: State,
    x: PyTree,
    *,
    members: bool = False,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Write a trained network to one file that JAX can load and call without nnjax, for batches of any size.

    The file is a ZIP archive. Its entry `network` is the network in evaluation mode with its parameters, serialized by
    `jax.export` (StableHLO). Its entry `metadata.json` contains the versions, the platforms, and the shapes of inputs
    and outputs. The archive contains a checksum of each entry, so reading a damaged file fails. These three lines load
    and call the network (JAX needs the package flatbuffers for this):

        from zipfile import ZipFile
        network = jax.export.deserialize(ZipFile("net.zip").read("network"))
        y = network.call(x)

    JAX guarantees that later versions can load the file for at least 6 months; see the documentation of `jax.export`.

    Args:
      path: path of the file. An existing file is replaced once the new one is on disk.
      net: the network, or a run, whose network is exported.
      params: the parameters of the network, such as `result.ts.params` or `result.best.params`.
      state: the state of the network, such as `result.ts.state`.
      x: an input (batch, ...); only shapes and dtypes are read, and the exported network takes any batch size. In
        inputs and outputs, NamedTuples become tuples.
      members: True if params and state have a leading axis (members, ...) for an ensemble. The outputs are then
        (members, batch, ...).
      platforms: the platforms on which the network can run, among "cpu", "cuda", "rocm" and "tpu".

    Raises:
      ValueError, TypeError: if params, state or x do not fit the network, or if members or platforms are invalid.
      InconclusiveDimensionOperation: an error of JAX, if the network's Python code branches on the batch size.
      ImportError: if flatbuffers is not installed (`pip install 'nnjax[export]'`).
      OSError: if writing fails. An existing file stays intact.

    >>> from zipfile import ZipFile
    >>> net = nn.mlp([8], 3)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> interop.export("net.zip", net, params, state, jnp.ones((1, 4)))
    >>> network = jax.export.deserialize(ZipFile("net.zip").read("network"))
    >>> network.call(jnp.ones((50, 4))).shape
    (50, 3)
    """
    checks.flag("export", "members", members)
    checks.items("export", "platforms", platforms, '("cpu", "cuda")')
    layer = as_layer(net.net if isinstance(net, Run) else net)
    exported = trace(layer, params, state, x, members=members, platforms=platforms)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "network": layer.name,
        "inputs": [str(shape) for shape in exported.in_avals],
        "outputs": [str(shape) for shape in exported.out_avals],
        "members": members,
        "platforms": exported.platforms,
        "calling_convention_version": exported.calling_convention_version,
        "jax": jax.__version__,
        "nnjax": __version__,
    }
    entries = {"network": bytes(exported.serialize()), "metadata.json": json.dumps(metadata, indent=2).encode()}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(zipfile.ZipInfo(name), entry)  # without a timestamp, equal networks give equal files
    write_file(Path(path).expanduser(), content.getvalue())


def trace(
    net: Layer, params: Params, state: State, x: PyTree, *, members: bool, platforms: Sequence[str]
) -> jax.export.Exported:
    """Export the network in evaluation mode, for batches of any size; see `export` for the arguments."""
    structure = jax.tree.structure(x)

    def predict(plain: PyTree) -> PyTree:
        x = jax.tree.unflatten(structure, jax.tree.leaves(plain))

        def apply(params: Params, state: State) -> PyTree:
            return net.apply(params, state, x, train=False)[0]

        return _without_named_tuples((jax.vmap(apply) if members else apply)(params, state))

    shapes = jax.export.symbolic_args_specs(_without_named_tuples(x), "batch, ...")
    with checks.located(f"in the export of {net.name}, for batches (batch, ...) of any size"):
        return jax.export.export(jax.jit(predict), platforms=list(platforms))(shapes)


def _without_named_tuples(tree: PyTree) -> Any:
    """Replace NamedTuples with tuples, because their classes may not exist where the file is loaded."""

    def is_named(node: Any) -> bool:
        return isinstance(node, tuple) and hasattr(node, "_fields")

    return jax.tree.map(
        lambda node: tuple(map(_without_named_tuples, node)) if is_named(node) else node, tree, is_leaf=is_named
    )
