-- Nothing: what Postgres needs here does not exist in SQLite.
SELECT 1;
