"""The agent as a whole, between real brokers, real Celery workers and an API double."""
