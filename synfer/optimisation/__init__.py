"""Optimisers, schedules and moving averages; no losses."""
