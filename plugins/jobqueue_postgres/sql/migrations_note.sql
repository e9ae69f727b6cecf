-- Note that a migration was applied.
INSERT INTO jobqueue_migrations (version, name, checksum, readable_from) VALUES (%(version)s, %(name)s, %(checksum)s, %(readable_from)s)
