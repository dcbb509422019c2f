"""Find the update rule that produces the recorded updates, and name how it differs from the reference."""
