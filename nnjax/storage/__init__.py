"""Save any pytree in one file with checksums, write files atomically, and write checkpoints in the background."""
