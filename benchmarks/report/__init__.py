"""Read a record: statistics, tables, pictures, and what became slower since an earlier record."""
