"""Run the measurements: each peer in its own process, in turn, with a record of all samples."""
