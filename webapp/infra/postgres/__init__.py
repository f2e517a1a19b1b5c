"""PostgreSQL: engine, deadlines, errors, and its text forms of values."""
