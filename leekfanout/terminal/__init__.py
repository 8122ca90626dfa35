"""What the commands show to a person, and ask."""
