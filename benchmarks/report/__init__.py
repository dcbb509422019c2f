"""Evaluate a record: statistics, tables, pictures, and regressions since an earlier record."""
