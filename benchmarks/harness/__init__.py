"""Measure: one process for each contender, taking turns, and a record of all samples."""
