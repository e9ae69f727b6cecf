-- Whose file this is. One statement, because another process may be making the schema at this moment.
SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)
