"""Workflows: jobs that wait for each other, and what follows when one fails."""
