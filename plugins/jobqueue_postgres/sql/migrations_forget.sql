-- Note that a migration was undone.
DELETE FROM jobqueue_migrations WHERE version = %(version)s
