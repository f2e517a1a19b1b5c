"""The dead letter queue: jobs that failed for good."""
