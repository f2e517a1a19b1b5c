"""A shop that ships its orders by jobs."""
