"""Convert weights to and from PyTorch.

| layer | PyTorch | converted |
|---|---|---|
| `dense`, `maxout` | `Linear` | PyTorch has (outputs, inputs) |
| `gated_dense` | `Linear` before `GLU` | one matrix, in which the rows of the value come first |
| `conv` | `Conv1d` … `Conv3d` | (outputs, inputs / groups, *kernel) |
| `conv_transpose` | `ConvTranspose1d` … `ConvTranspose3d` | (inputs, outputs, *kernel) |
| `embedding`, `learned_positions` | `Embedding` | |
| `batch_norm`, `layer_norm`, `rms_norm`, `group_norm`, `instance_norm` | of the same name | `scale` is `weight` |
| `multi_head_attention` | `MultiheadAttention` | queries, keys and values are one matrix |
| `rnn`, `lstm`, `gru` | each layer and direction of `RNN`, `LSTM`, `GRU`; cells | two biases, see below |
| `weight_norm`, `spectral_norm` | of the same name in `torch.nn.utils` and `torch.nn.utils.parametrizations` | |

All matrices except embeddings are (outputs, inputs) in PyTorch. The two biases of recurrent layers are added, except
for the gate n of `gru`, which keeps both.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from nnjax.interop import _convert
from nnjax.interop._common_conventions import norm_conventions, outputs_first, outputs_last, with_channels_first
from nnjax.interop._convert import Convention, Library, Names, leaf_conversions, same
from nnjax.interop._parts import Leaves, kind_of
from nnjax.types import LayerLike, Params, PyTree, State


def import_weights(net: LayerLike, x: PyTree, weights: Any, *, names: Names | None = None) -> tuple[Params, State]:
    """Convert the weights of a PyTorch module to the parameters and state of a network with the same layers.

    Layers of the same kind are paired in order. In nnjax, this is the order of the network (in `residual`, the shortcut
    is last); in PyTorch, the order of the state dict. Compare the outputs for one input, because swapped layers of
    equal shapes cannot be detected. The inputs of a dense layer after a flattened image are reordered, because PyTorch
    puts channels first.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype; the parameters get its dtype.
      weights: A `torch.nn.Module`, or a state dict of tensors or arrays, for example from a safetensors file.
      names: For layers in a different order, a mapping from the path of a layer to the name of its module, such as
        {"3/1": "head.fc"}, or to None if the module has no weights. Inside `repeat`, the number of the copy is part of
        the path. A path such as "3/query" pairs one affine map of a layer, and a name may also denote a single tensor.

    Returns:
      The parameters and the state of the network.

    Raises:
      ValueError: if a layer has no weights, if weights have no layer, if shapes differ (the message names the weight,
        its shape and the expected shape), if a layer cannot be converted, or if `names` is wrong.
      TypeError: if `weights` is not a module or a state dict.

    >>> weights = {"fc.weight": np.ones((3, 4)), "fc.bias": np.zeros(3)}  # or module.state_dict()
    >>> params, state = interop.torch.import_weights(nn.dense(3), jnp.ones((1, 4)), weights)
    >>> params["w"].shape
    (4, 3)
    """
    return _convert.import_weights(_TORCH, net, x, _flat(weights), names)


def export_weights(
    net: LayerLike, x: PyTree, params: Params, state: State, *, like: Any, names: Names | None = None
) -> dict[str, Any]:
    """Convert the weights of a network to a PyTorch state dict, for `module.load_state_dict`.

    Args:
      net: The network.
      x: An input of the network, or its shape and dtype.
      params: The parameters of the network.
      state: The state of the network.
      like: The `torch.nn.Module` to receive the weights, or its state dict. It is not changed.
      names: As for `import_weights`.

    Returns:
      A dictionary with the names, dtypes and devices of `like`; entries without a counterpart, such as
      `num_batches_tracked`, keep the values of `like`.

    Raises:
      ValueError: as in `import_weights`; or if params or state do not fit the network, or if `like` has no
        counterpart for an array that affects the output, such as a nonzero bias.
      TypeError: if `like` is not a module or a state dict.

    >>> params, state = nn.dense(3).init(jax.random.key(0), jnp.ones((1, 4)))
    >>> like = {"fc.weight": np.ones((3, 4)), "fc.bias": np.zeros(3)}  # or a module
    >>> weights = interop.torch.export_weights(nn.dense(3), jnp.ones((1, 4)), params, state, like=like)
    >>> weights["fc.weight"].shape
    (3, 4)
    """
    whole = dict(like.state_dict() if hasattr(like, "state_dict") else like)
    leaves = _convert.export_weights(_TORCH, net, x, (params, state), _flat(whole), names)
    return whole | {name: _like(whole[name], leaves[_path(name)]) for name in whole if _path(name) in leaves}


def _path(name: str) -> str:
    """Rename a recurrent tensor as if each layer and direction were a submodule: weight_ih_l0 becomes l0.weight_ih."""
    return re.sub(r"((?:weight|bias)_(?:ih|hh|hr))_(l\d+(?:_reverse)?)$", r"\2.\1", name)


def _flat(weights: Any) -> Leaves:
    if hasattr(weights, "state_dict"):
        weights = weights.state_dict()
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"interop.torch: expected a module or a state dict, got {type(weights).__name__}; "
            "read a file with torch.load"
        )
    arrays = {_path(name): _array(value) for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    # Flatten the norms of the weights, because weight_norm stores them with axes of length 1
    return {
        name: value.ravel() if name.endswith(("original0", "weight_g")) else value for name, value in arrays.items()
    }


def _array(value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _like(value: Any, leaf: Array) -> Any:
    """Return an array with the shape and dtype of `value`, as a tensor if `value` is a tensor."""
    array = np.array(leaf).reshape(value.shape)
    if not hasattr(value, "detach"):
        return array.astype(value.dtype)
    import torch

    return torch.from_numpy(array).to(dtype=value.dtype, device=value.device)


# Conventions ---------------------------------------------------------------------------------------------------------


def _transpose_conv(w: Array) -> Array:
    return jnp.moveaxis(w, (-2, -1), (0, 1))  # (*kernel, inputs, outputs) -> (inputs, outputs, *kernel)


def _transpose_conv_back(w: Array) -> Array:
    return jnp.moveaxis(w, (0, 1), (-2, -1))


_WEIGHTS = {
    "dense": (jnp.transpose, jnp.transpose),
    "conv": (outputs_first, outputs_last),
    "conv_transpose": (_transpose_conv, _transpose_conv_back),
}
_BIAS = {"b": ("bias", same, same)}


def _affine(kind: str) -> Convention:
    return leaf_conversions({"w": ("weight", *_WEIGHTS[kind]), **_BIAS})


def _gated_to_torch(native: Leaves) -> Leaves:
    foreign = {"weight": jnp.concatenate([native["value/w"].T, native["gate/w"].T])}
    return foreign | ({"bias": jnp.concatenate([native["value/b"], native["gate/b"]])} if "gate/b" in native else {})


def _gated_from_torch(foreign: Leaves) -> Leaves:
    value, gate = jnp.split(foreign["weight"], 2)
    native = {"value/w": value.T, "gate/w": gate.T}
    if "bias" in foreign:
        native["value/b"], native["gate/b"] = jnp.split(foreign["bias"], 2)
    return native


_PARTS = ("query", "key", "value")


def _attention_to_torch(native: Leaves) -> Leaves:
    foreign = {
        "in_proj_weight": jnp.concatenate([native[f"{part}/w"].T for part in _PARTS]),
        "out_proj.weight": native["out/w"].T,
    }
    if "out/b" in native:
        foreign["in_proj_bias"] = jnp.concatenate([native[f"{part}/b"] for part in _PARTS])
        foreign["out_proj.bias"] = native["out/b"]
    return foreign


def _attention_from_torch(foreign: Leaves) -> Leaves:
    weights = zip(_PARTS, jnp.split(foreign["in_proj_weight"], 3), strict=True)
    native = {f"{part}/w": w.T for part, w in weights} | {"out/w": foreign["out_proj.weight"].T}
    if "in_proj_bias" in foreign:
        native |= {f"{part}/b": b for part, b in zip(_PARTS, jnp.split(foreign["in_proj_bias"], 3), strict=True)}
        native["out/b"] = foreign["out_proj.bias"]
    return native


def _recurrent_to_torch(native: Leaves) -> Leaves:
    """Convert a recurrent layer to PyTorch. The second bias is 0, except for its last part in a GRU, which is b_h."""
    second = jnp.zeros_like(native["b"])
    if "b_h" in native:
        second = second.at[-len(native["b_h"]) :].set(native["b_h"])
    return {"weight_ih": native["w_x"].T, "weight_hh": native["w_h"].T, "bias_ih": native["b"], "bias_hh": second}


def _recurrent_from_torch(foreign: Leaves) -> Leaves:
    b = foreign["bias_ih"] + foreign["bias_hh"]
    return {"w_x": foreign["weight_ih"].T, "w_h": foreign["weight_hh"].T, "b": b}


def _gru_from_torch(foreign: Leaves) -> Leaves:
    """Convert a GRU from PyTorch. Add the two biases of r and z, but keep the second bias of n, which r multiplies."""
    size = foreign["weight_hh"].shape[1]
    joint = (foreign["bias_ih"] + foreign["bias_hh"])[: 2 * size]
    b = jnp.concatenate([joint, foreign["bias_ih"][2 * size :]])
    return _recurrent_from_torch(foreign) | {"b": b, "b_h": foreign["bias_hh"][2 * size :]}


def _norm_conventions(kind: str, inner: str) -> list[Convention]:
    """Return the conventions of `weight_norm` or `spectral_norm`: as a parametrisation, and as the older hook."""
    to, back = _WEIGHTS[inner]
    if kind == "weight_norm":
        prefix = "parametrizations.weight.original"
        return [
            leaf_conversions({"g": (g, same, same), "w": (v, to, back), **_BIAS})
            for g, v in ((f"{prefix}0", f"{prefix}1"), ("weight_g", "weight_v"))
        ]

    def convention(w: str, u: str, v: str) -> Convention:
        return with_channels_first(leaf_conversions({"w": (w, to, back), "u": (u, same, same), **_BIAS}), v)

    prefix = "parametrizations.weight"
    return [
        convention(f"{prefix}.original", f"{prefix}.0._u", f"{prefix}.0._v"),
        convention("weight_orig", "weight_u", "weight_v"),
    ]


_BIASES = {"bias_ih": 0.0, "bias_hh": 0.0}
_TABLE = {
    "dense": _affine("dense"),
    "maxout": _affine("dense"),
    "conv": _affine("conv"),
    "conv_transpose": _affine("conv_transpose"),
    "gated_dense": Convention(_gated_to_torch, _gated_from_torch),
    "embedding": leaf_conversions({"w": ("weight", same, same)}),
    "learned_positions": leaf_conversions({"w": ("weight", same, same)}),
    **norm_conventions("weight", "bias", "running_mean", "running_var"),
    "multi_head_attention": Convention(_attention_to_torch, _attention_from_torch),
    "rnn": Convention(_recurrent_to_torch, _recurrent_from_torch, _BIASES),
    "lstm": Convention(_recurrent_to_torch, _recurrent_from_torch, _BIASES),
    "gru": Convention(_recurrent_to_torch, _gru_from_torch, _BIASES),
}


def _conventions(kind: str, arguments: str) -> Sequence[Convention]:
    if kind in ("weight_norm", "spectral_norm"):
        inner, _, _ = kind_of(arguments)
        known = (
            ("dense", "conv") if kind == "weight_norm" else _WEIGHTS
        )  # PyTorch's weight_norm of conv_transpose has norms per input, nnjax's per output
        return _norm_conventions(kind, inner) if inner in known else []
    return [_TABLE[kind]] if kind in _TABLE else []


_TORCH = Library("interop.torch", ".", _conventions, channels_first=True)
