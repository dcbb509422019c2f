"""Code that the JAX peers share."""
