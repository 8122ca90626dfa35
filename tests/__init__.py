"""The tests, and the servers, clients and counting tools that they share."""
