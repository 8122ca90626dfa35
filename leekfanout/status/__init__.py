"""How subscriptions are: the numbers that they share, and what these mean to people."""
