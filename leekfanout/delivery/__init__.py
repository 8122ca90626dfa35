"""What runs in a subscription's process: from its source to its API, and acks back."""
