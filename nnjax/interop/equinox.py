"""Weights to and from Equinox, and its modules as layers."""
