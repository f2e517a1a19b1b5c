"""Batches: jobs that are counted together, however many, and what follows when all of them have ended. Knows neither Flask nor Celery."""
