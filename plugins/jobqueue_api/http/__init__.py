"""What is HTTP's own: declaring operations, reading requests, refusing them, and the gate that all pass."""
