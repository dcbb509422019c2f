"""Benchmarks of nnjax against the limits of this machine and other libraries."""
