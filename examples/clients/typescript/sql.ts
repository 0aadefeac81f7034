// Commits an order together with the work that it asks for, on Postgres.
//
//     npx tsx sql.ts postgres://me@localhost/mydb order-1

import pg from "pg";

const [url, order] = process.argv.slice(2);

/** With the commit the items are there and watchers are woken; with a rollback nothing remains. */
async function place(db: pg.Client, order: string, steps: string[], isBad = false): Promise<void> {
  await db.query("BEGIN");
  try {
    await db.query("INSERT INTO orders (id) VALUES ($1)", [order]);
    // The partition first: an item without one is refused.
    await db.query("INSERT INTO gatefeed_partitions (id) VALUES ($1) ON CONFLICT DO NOTHING", [order]);
    for (const [step, gate] of [...steps.map((step) => [step, 0] as const), ["mail", 1] as const]) {
      // Bytes, so that no backslash of the JSON is taken for an escape.
      const data = Buffer.from(JSON.stringify({ order, do: step }));
      await db.query(
        "INSERT INTO gatefeed_items (partition_id, id, gate, data) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        [order, step, gate, data],
      );
    }
    if (isBad) throw new Error("the order will not do");
    await db.query("COMMIT");
    console.log(`placed ${order}`);
  } catch (error) {
    await db.query("ROLLBACK");
    throw error;
  }
}

const db = new pg.Client({ connectionString: url });
await db.connect();
try {
  await db.query("CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY)");
  await place(db, order, ["invoice", "parcel"]);
  await place(db, `${order}-refused`, ["invoice"], true).catch((error: Error) => {
    console.log(`rolled back: ${error.message}`);
  });
} finally {
  await db.end();
}
