"""Weights to and from Flax (linen and nnx), and its modules as layers."""
