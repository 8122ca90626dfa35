"""The whole way, with nothing to configure."""
