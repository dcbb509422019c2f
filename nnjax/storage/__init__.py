"""Safe files: any pytree in one file with checksums, written atomically, by a thread, in a locked folder."""
