"""Schedules: jobs that DJPS submits by itself, each nominal time once."""
