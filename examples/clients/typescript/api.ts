// Pushes a partition over the API, waits until it is through, and prints what became of its items.
//
//     npx tsx api.ts http://127.0.0.1:8081 batch-1

interface Partition {
  id: string;
  status: "available" | "paused" | "complete" | "failed" | "cancelled";
}

interface Item {
  id: string;
  status: string;
  data?: string;
}

const [url, partition] = process.argv.slice(2);
const token = process.env.GATEFEED_TOKEN;
const path = `/v1/partitions/${encodeURIComponent(partition)}`;

/** Errors say what is wrong in `detail`; 429 and 503 say in Retry-After when to ask again. */
async function call<T>(path: string, init: RequestInit = {}): Promise<T> {
  const headers = new Headers(init.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const response = await fetch(new URL(path, url), { ...init, headers });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(`HTTP ${response.status}: ${problem.detail ?? response.statusText}`);
  }
  return (await response.json()) as T;
}

// One transaction. Ids of one's own make it safe to repeat: what exists is left as it is.
const pushed = await call<{ added: number; existing: number }>("/v1/partitions", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    id: partition,
    items: [
      { id: "page-1", data: { text: "two words" } },
      { id: "page-2", data: { text: "three more words" } },
    ],
  }),
});
console.log(`added ${pushed.added}, there already ${pushed.existing}`);

// A single item: its data is the body, of any type. A second request with the same key adds nothing.
await call(`${path}/items?id=note`, {
  method: "POST",
  headers: { "Content-Type": "text/plain", "Idempotency-Key": "note-1" },
  body: "plain text",
});

let row: Partition;
do {
  row = await call<Partition>(`${path}?wait=30s`);
} while (row.status === "available" || row.status === "paused");
console.log(`${partition} is ${row.status}`);

let after: string | null = null;
do {
  const query: string = after === null ? "" : `&after=${encodeURIComponent(after)}`;
  const page: { items: Item[]; next: string | null } = await call(`${path}/items?data=true${query}`);
  for (const item of page.items) console.log(item.id, item.status, item.data ?? "(not text)");
  after = page.next;
} while (after !== null);
