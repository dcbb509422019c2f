"""Save any pytree in one file with checksums, written atomically, in the background, to a locked folder."""
