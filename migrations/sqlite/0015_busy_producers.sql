-- Nothing: SQLite's triggers look at one partition each.
SELECT 1;
