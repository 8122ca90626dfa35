"""What agents and monitors have left at brokers, to be found and deleted."""
