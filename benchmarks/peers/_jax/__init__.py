"""Provide code that all JAX peers share."""
