"""Define the jobs that all peers run, their common inputs, and the float64 results that check them."""
