"""The processes of a worker, and what jobs do to them."""
