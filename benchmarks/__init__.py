"""Benchmarks: ``python -m benchmarks`` prints a table. README.md says what each figure means."""
