"""The parent: it forks a process for each subscription, watches it, and restarts it."""
