"""The agent page, over HTTP and in a real browser."""
