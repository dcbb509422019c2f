"""What this machine does, against its limit and against other libraries."""
