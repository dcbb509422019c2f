"""Check what jit, scan and vmap require of every optimizer, independently of its update rule."""
