"""Queues: what waits, and how it reaches the workers."""
