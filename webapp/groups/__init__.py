"""Groups: what batches and workflows have in common. Members count when they end, and the database itself notes each end."""
