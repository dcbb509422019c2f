"""Check the requirements of jit, scan and vmap, which do not depend on the update rule."""
