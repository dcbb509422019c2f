"""Code that several JAX peers share."""
