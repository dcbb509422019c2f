"""Find where a NaN or an infinity comes from, and count the operations of a program."""
