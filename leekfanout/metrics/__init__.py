"""Prometheus' metrics and the health that probes ask for, served by a process of their own."""
