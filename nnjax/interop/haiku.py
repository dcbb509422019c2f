"""Weights to and from Haiku, and its transformed functions as layers."""
