"""Check what jit, scan and vmap require of every optimizer, independent of its update rule."""
