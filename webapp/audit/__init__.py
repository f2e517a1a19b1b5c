"""The record of acts: who changed what, when and why. Knows neither Flask nor Celery."""
