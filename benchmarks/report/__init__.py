"""Read a record: statistics, tables, pictures, and what became slower between two records."""
