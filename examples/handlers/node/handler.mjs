#!/usr/bin/env node
// A gatefeed handler that counts words. Node 18 or later, no dependencies.
//
//     node handler.mjs 8080
//     gatefeed run --target http://127.0.0.1:8080/
//
// At gate 0 an item is a text, whose words are counted: a file, a JSON string or {"text": "…"}. Or it is
// {"texts": ["…", "…"]}: then each text becomes an item of its own, and the item goes to gate 1. There it comes back
// once all of them are through, and gets their sum. {"total": true} at a later gate gets the sum of its whole partition.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const BODY_MAX = 1 << 20; // bytes; times AT_ONCE it is the most memory that bodies take
const AT_ONCE = 32; // requests in work; who comes beyond is told to come again
const REMEMBERED_MAX = 100_000;

// The secrets that the watcher signs with, as it has them; without one everybody is believed.
const SECRETS = (process.env.GATEFEED_SIGNING_SECRET ?? "").split(/[\s,]+/).filter(Boolean);
const SIGNED_FOR = 300; // seconds that a signature is good for, so that nobody sends an old delivery again

let inWork = 0;
// Gone with the process. A real handler keeps both in its database, in the transaction that does the work.
const answers = new Map(); // Idempotency-Key → the answer that was given
const words = new Map(); // partition and item → how many

/** Trying again will not help: the item has to be mended. */
class BadInput extends Error {}

function remember(memory, key, value) {
  if (memory.size >= REMEMBERED_MAX) memory.delete(memory.keys().next().value); // the oldest
  memory.set(key, value);
}

/** The item's data: text as a string, else JSON. What is neither declared nor JSON is text too. */
function understand(body, contentType) {
  const kind = contentType.split(";")[0].trim().toLowerCase();
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(body);
    return kind.startsWith("text/") ? text : JSON.parse(text);
  } catch {
    if (text === undefined) throw new BadInput("the body is not text in UTF-8");
    if (/[/+]json$/.test(kind)) throw new BadInput("the body is not JSON");
    return text;
  }
}

/** What becomes of the item: the fields of the answer. */
function work(partition, item, gate, data) {
  const name = (n) => JSON.stringify([partition, n === undefined ? item : `${item}/${n}`]);
  const { text, texts, total } = typeof data === "string" ? { text: data } : (data ?? {});
  if (gate === 0 && typeof text === "string") {
    const count = (text.match(/\S+/g) ?? []).length;
    remember(words, name(), count);
    return { data: { words: count } };
  }
  if (gate === 0 && Array.isArray(texts)) {
    // Ids of our own, so that the sum finds them; without ids they would be added only once as well.
    const items = texts.map((text, n) => ({ id: `${item}/${n}`, data: { text } }));
    return { gate: 1, data: { texts: texts.length }, items };
  }
  if (gate === 1 && Number.isInteger(texts)) {
    let sum = 0;
    for (let n = 0; n < texts; n++) {
      if (!words.has(name(n)))
        throw new BadInput("not all texts are known: they were counted before this handler was started");
      sum += words.get(name(n));
    }
    return { data: { texts, words: sum } };
  }
  if (gate > 0 && total === true) {
    // The gate has waited for all of them. A real handler sums in its database: this memory may have begun later.
    let sum = 0;
    for (const [name, count] of words) if (JSON.parse(name)[0] === partition) sum += count;
    return { data: { total: sum } };
  }
  throw new BadInput('expected a text or {"texts": ["…"]} at gate 0, or {"total": true} after it');
}

const refusal = (message) => ({ error: { message, no_retry: true } });

/** A header's value: gatefeed sends UTF-8, Node reads Latin-1. */
const header = (request, name) => Buffer.from(request.headers[name] ?? "", "latin1").toString();

/** The body; null if it is longer. That is read and dropped: a connection that is closed with bytes unread is reset,
 * and the answer can be lost. */
async function readBody(request, most) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size <= most) parts.push(part);
  }
  return size <= most ? Buffer.concat(parts) : null;
}

/** Whether a delivery is from somebody who has one of the secrets (Standard Webhooks). */
function isGenuine({ headers }, body) {
  if (SECRETS.length === 0) return true;
  const [id, timestamp] = [headers["webhook-id"], headers["webhook-timestamp"]];
  if (!id || !(Math.abs(Date.now() / 1000 - Number(timestamp)) <= SIGNED_FOR)) return false;
  const given = (headers["webhook-signature"] ?? "").split(" ").map((one) => Buffer.from(one));
  return SECRETS.some((secret) => {
    const key = Buffer.from(secret.slice("whsec_".length), "base64");
    const code = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
    const wanted = Buffer.from(`v1,${code}`);
    return given.some((one) => one.length === wanted.length && timingSafeEqual(one, wanted));
  });
}

function deliver(request, body) {
  if (!isGenuine(request, body)) return [401, { error: { message: "the signature is missing, wrong or old" } }];
  const key = request.headers["idempotency-key"];
  if (answers.has(key)) return [200, answers.get(key)]; // the work is done, only the answer was lost
  try {
    const [partition, item] = [header(request, "gatefeed-partition"), header(request, "gatefeed-item")];
    const data = understand(body, header(request, "content-type"));
    const answer = work(partition, item, Number(header(request, "gatefeed-gate")), data);
    if (key) remember(answers, key, answer);
    return [200, answer];
  } catch (error) {
    if (error instanceof BadInput) return [400, refusal(error.message)];
    throw error;
  }
}

async function respond(request) {
  if (inWork >= AT_ONCE) {
    await readBody(request, 0);
    return [503, { error: { message: "busy" } }, { "Retry-After": 1 }]; // costs the item no retry
  }
  inWork++;
  try {
    const body = await readBody(request, BODY_MAX);
    return body ? deliver(request, body) : [413, refusal(`more than ${BODY_MAX} bytes`)];
  } finally {
    inWork--;
  }
}

const server = createServer(async (request, response) => {
  try {
    const [status, fields, headers] = await respond(request);
    const body = JSON.stringify(fields);
    // Without this, a server that is closing would wait for kept connections.
    if (!server.listening) response.setHeader("Connection", "close");
    const length = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) };
    response.writeHead(status, { ...length, ...headers }).end(body); // head and body leave in one write
  } catch (error) {
    // The client went away, or it is a mistake of ours. gatefeed tries again.
    if (error.code !== "ECONNRESET") console.error(error.stack);
    response.destroy();
  }
});
server.keepAliveTimeout = 75_000; // ms; the watcher drops an idle connection after 60 s, and it should be the first

const stop = () => {
  server.close(); // what is in work ends first
  server.closeIdleConnections();
};
process.on("SIGTERM", stop).on("SIGINT", stop);
const host = process.env.HOST ?? "127.0.0.1";
server.listen(Number(process.argv[2] ?? process.env.PORT ?? 8080), host, 128, () => {
  console.log(`listening on http://${host}:${server.address().port}/`);
});
