"""Measure the peers in turn, each in its own process, and record all samples."""
