"""The Redis Streams broker: jobs in streams, one idempotent Lua script a transition (docs/redis.md)."""
