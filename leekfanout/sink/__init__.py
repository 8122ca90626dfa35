"""A small Leek API to develop against."""
