"""What the rooms of the domain stand on: PostgreSQL, the broker, telemetry, processes."""
