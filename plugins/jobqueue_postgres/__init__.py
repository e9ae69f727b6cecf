"""The PostgreSQL storage: execution history, dead letter queue and schedules (docs/postgres.md)."""
