"""Events on their way from the broker's log to streams."""
