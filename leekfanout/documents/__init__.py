"""Celery's events to Leek's documents. Pure."""
