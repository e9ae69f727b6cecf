"""Cron scheduling: jobs at the times that an expression names, exactly one for each, with any number of schedulers."""
