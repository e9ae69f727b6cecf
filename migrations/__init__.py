"""The migrations of the PostgreSQL storage, as data: see README.md in this folder."""
