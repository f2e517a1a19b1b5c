"""What runs on Celery: execution, dead letters, recovery, presence. `tasks.celery` puts the processes together."""
