"""Parts that several JAX peers share."""
