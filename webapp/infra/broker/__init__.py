"""The broker: what is sent to Redis, within which time, and under which keys."""
