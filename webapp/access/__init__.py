"""Who may do what: scopes, roles and callers, and the keys that they show. Knows neither Flask nor Celery."""
