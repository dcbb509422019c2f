"""Save any pytree in one file with checksums. Files are written atomically, checkpoints also in the background."""
