"""Scheduling: schedules as people define them, the ticks they have, the jobs that ticks become, and what can be done with them."""
