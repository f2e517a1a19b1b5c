"""Presence: what the parent of a worker does for its children."""
