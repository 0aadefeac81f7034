-- Nothing: what is not UTF-8 the server refuses, and a database in another encoding gatefeed does.
SELECT 1;
