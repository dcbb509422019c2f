"""Define how Flax (linen and nnx) stores the weights of each kind of layer."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import Array

from nnjax.interop._common_conventions import norm_conventions
from nnjax.interop._convert import Convention, leaf_conversions, same
from nnjax.interop._parts import Leaves, kind_of

_DENSE = {"w": ("kernel", same, same), "b": ("bias", same, same)}


def _reverse_kernel(w: Array) -> Array:
    return jnp.flip(w, tuple(range(w.ndim - 2)))


def _attention(heads: int) -> Convention:
    def to_library(native: Leaves) -> Leaves:
        foreign = {}
        for name, leaf in native.items():
            part, kind = name.split("/")
            split = leaf.reshape(*leaf.shape[:-1], heads, -1) if part != "out" else leaf
            split = leaf.reshape(heads, -1, leaf.shape[-1]) if name == "out/w" else split
            foreign[f"{part}/{'kernel' if kind == 'w' else 'bias'}"] = split
        return foreign

    def from_library(foreign: Leaves) -> Leaves:
        native = {}
        for name, leaf in foreign.items():
            part, kind = name.split("/")
            rows = leaf.shape[:1] if part != "out" else (-1,)
            native[f"{part}/{'w' if kind == 'kernel' else 'b'}"] = (
                leaf.reshape(*rows, leaf.shape[-1] if part == "out" else -1) if kind == "kernel" else leaf.ravel()
            )
        return native

    return Convention(to_library, from_library)


def _gates(inputs: Sequence[str], states: Sequence[str], biased: str) -> Convention:
    """Return the convention of a recurrent cell with a matrix for each gate.

    Args:
      inputs: names of the affine maps of the input, one per gate.
      states: names of the affine maps of the state, one per gate.
      biased: the maps that have a bias, "inputs" or "states".
    """
    with_bias = inputs if biased == "inputs" else states

    def to_library(native: Leaves) -> Leaves:
        foreign: Leaves = {}
        for leaf, names, end in (("w_x", inputs, "kernel"), ("w_h", states, "kernel"), ("b", with_bias, "bias")):
            blocks = jnp.split(native[leaf], len(names), -1)
            foreign |= {f"{name}/{end}": block for name, block in zip(names, blocks, strict=True)}
        return foreign | ({f"{states[-1]}/bias": native["b_h"]} if "b_h" in native else {})

    def from_library(foreign: Leaves) -> Leaves:
        def joined(names: Sequence[str], end: str) -> Array:
            return jnp.concatenate([foreign[f"{name}/{end}"] for name in names], -1)

        native = {"w_x": joined(inputs, "kernel"), "w_h": joined(states, "kernel"), "b": joined(with_bias, "bias")}
        second = f"{states[-1]}/bias"
        return native | ({"b_h": foreign[second]} if biased == "inputs" and second in foreign else {})

    return Convention(to_library, from_library)


def _joint(bias: str) -> Convention:
    """Return the convention of an nnx cell that has one matrix for all gates.

    `bias` names the affine map that has the bias: "dense_i" or "dense_h".
    """
    return leaf_conversions(
        {
            "w_x": ("dense_i/kernel", same, same),
            "w_h": ("dense_h/kernel", same, same),
            "b": (f"{bias}/bias", same, same),
            "b_h": ("missing b_h", same, same),
        },
        {"missing b_h": 0.0},
    )


def _spectral(kernel: str, b: str, stats: str) -> Convention:
    """Return the convention of `spectral_norm`. Flax stores u before the power iteration, nnjax after it."""
    leaves = leaf_conversions({"w": (kernel, same, same), "b": (b, same, same)})

    def to_library(native: Leaves) -> Leaves:
        w = native["w"].reshape(-1, native["w"].shape[-1])
        return leaves.to_library(native) | {
            f"{stats}/u": native["u"][None],
            f"{stats}/sigma": native["v"] @ w @ native["u"],
        }

    def from_library(foreign: Leaves) -> Leaves:
        native = leaves.from_library(foreign)
        w = native["w"].reshape(-1, native["w"].shape[-1])
        v = w @ foreign[f"{stats}/u"][0]
        v = v / jnp.linalg.norm(v)
        u = v @ w
        return native | {"u": u / jnp.linalg.norm(u), "v": v}

    return Convention(to_library, from_library)


_TABLE: dict[str, Sequence[Convention]] = {
    "dense": [leaf_conversions(_DENSE)],
    "maxout": [leaf_conversions(_DENSE)],
    "conv": [leaf_conversions(_DENSE)],
    "conv_transpose": [leaf_conversions(_DENSE | {"w": ("kernel", _reverse_kernel, _reverse_kernel)})],
    "embedding": [leaf_conversions({"w": ("embedding", same, same)})],
    "learned_positions": [leaf_conversions({"w": ("embedding", same, same)})],
    **{kind: [norm] for kind, norm in norm_conventions("scale", "bias", "mean", "var").items()},
}
LINEN = _TABLE | {
    "rnn": [_gates(["i"], ["h"], "inputs")],
    "lstm": [_gates(["ii", "if", "ig", "io"], ["hi", "hf", "hg", "ho"], "states")],
    "gru": [_gates(["ir", "iz", "in"], ["hr", "hz", "hn"], "inputs")],
    "weight_norm": [leaf_conversions(_DENSE | {"g": ("kernel/scale", same, same)})],
    "spectral_norm": [_spectral("kernel", "bias", "kernel")],
}
NNX = _TABLE | {
    "rnn": [_joint("dense_i")],
    "lstm": [_joint("dense_h"), _gates(["ii", "if_", "ig", "io"], ["hi", "hf", "hg", "ho"], "states")],
    "gru": [_joint("dense_i")],
    "weight_norm": [
        leaf_conversions(
            {
                "w": ("layer_instance/kernel", same, same),
                "b": ("layer_instance/bias", same, same),
                "g": ("scales/kernel", same, same),
            }
        )
    ],
    "spectral_norm": [_spectral("layer_instance/kernel", "layer_instance/bias", "batch_stats/kernel")],
}


def conventions_of(table: Mapping[str, Sequence[Convention]], kind: str, arguments: str) -> Sequence[Convention]:
    if kind == "multi_head_attention":
        return [_attention(int(arguments))]
    if kind in ("weight_norm", "spectral_norm") and kind_of(arguments)[0] not in ("dense", "conv"):
        return []
    return table.get(kind, [])
