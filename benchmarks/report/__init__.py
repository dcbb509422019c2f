"""Evaluate the results of a run: statistics, tables, pictures, and slowdowns since an earlier run."""
