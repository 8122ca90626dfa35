"""What is configured: subscriptions and settings, read, checked, kept in the file, changed."""
