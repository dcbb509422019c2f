"""Check what every update rule must satisfy: jit, scan and vmap work, inputs stay unchanged, NaN does not spread."""
