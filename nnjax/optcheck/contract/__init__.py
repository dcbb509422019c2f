"""Check what jit, scan and vmap require of every optimizer, whatever its update rule."""
