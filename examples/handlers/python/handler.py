#!/usr/bin/env python3
"""A gatefeed handler that counts words. Standard library only.

    python3 handler.py 8080
    gatefeed run --target http://127.0.0.1:8080/

At gate 0 an item is a text, whose words are counted: a file, a JSON string or {"text": "…"}. Or it is
{"texts": ["…", "…"]}: then each text becomes an item of its own, and the item goes to gate 1. There it comes back once
all of them are through, and gets their sum. {"total": true} at a later gate gets the sum of its whole partition.
"""
import base64, hmac, json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_MAX = 1 << 20  # bytes; times AT_ONCE it is the most memory that bodies take
AT_ONCE = 32  # requests in work; who comes beyond is told to come again
REMEMBERED_MAX = 100_000

# The secrets that the watcher signs with, as it has them; without one everybody is believed.
SECRETS = os.environ.get("GATEFEED_SIGNING_SECRET", "").replace(",", " ").split()
SECRETS = [base64.b64decode(secret[len("whsec_") :] + "==") for secret in SECRETS]
SIGNED_FOR = 300  # seconds that a signature is good for, so that nobody sends an old delivery again

slots = threading.BoundedSemaphore(AT_ONCE)
lock = threading.Lock()
# Gone with the process. A real handler keeps both in its database, in the transaction that does the work.
answers = {}  # Idempotency-Key → the answer that was given
words = {}  # (partition, item) → how many


class BadInput(Exception):
    """Trying again will not help: the item has to be mended."""


def remember(memory, key, value):
    with lock:
        if len(memory) >= REMEMBERED_MAX:
            del memory[next(iter(memory))]  # the oldest
        memory[key] = value


def understand(body, content_type):
    """The item's data: text as a string, else JSON. What is neither declared nor JSON is text too."""
    kind = content_type.split(";")[0].strip().lower()
    try:
        text = body.decode("utf-8-sig")
        return text if kind.startswith("text/") else json.loads(text)
    except UnicodeDecodeError:
        raise BadInput("the body is not text in UTF-8")
    except (ValueError, RecursionError):
        if kind.endswith(("/json", "+json")):
            raise BadInput("the body is not JSON")
        return text


def work(partition, item, gate, data):
    """What becomes of the item: the fields of the answer."""
    if not isinstance(data, dict):
        data = {"text": data}  # a string, or what will not do
    text, texts = data.get("text"), data.get("texts")
    if gate == 0 and isinstance(text, str):
        remember(words, (partition, item), len(text.split()))
        return {"data": {"words": len(text.split())}}
    if gate == 0 and isinstance(texts, list):
        # Ids of our own, so that the sum finds them; without ids they would be added only once as well.
        items = [{"id": f"{item}/{n}", "data": {"text": text}} for n, text in enumerate(texts)]
        return {"gate": 1, "data": {"texts": len(texts)}, "items": items}
    if gate == 1 and isinstance(texts, int):
        counts = [words.get((partition, f"{item}/{n}")) for n in range(min(texts, REMEMBERED_MAX))]
        if None in counts:
            raise BadInput("not all texts are known: they were counted before this handler was started")
        return {"data": {"texts": texts, "words": sum(counts)}}
    if gate > 0 and data.get("total") is True:
        # The gate has waited for all of them. A real handler sums in its database: this memory may have begun later.
        with lock:
            return {"data": {"total": sum(n for (p, _), n in words.items() if p == partition)}}
    raise BadInput('expected a text or {"texts": ["…"]} at gate 0, or {"total": true} after it')


def refusal(message):
    return {"error": {"message": message, "no_retry": True}}


def is_genuine(headers, body):
    """Whether a delivery is from somebody who has one of the secrets (Standard Webhooks)."""
    if not SECRETS:
        return True
    sent, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if not sent or not (timestamp or "").isdecimal() or abs(time.time() - int(timestamp)) > SIGNED_FOR:
        return False
    signed = f"{sent}.{timestamp}.".encode() + body
    wanted = [b"v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")) for secret in SECRETS]
    given = (headers["webhook-signature"] or "").encode().split()
    return any(hmac.compare_digest(one, other) for one in given for other in wanted)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept; with 1.0 each item would need a new one
    wbufsize = -1  # head and body leave in one write: two can cost 40 ms (Nagle waits for a delayed ACK)
    disable_nagle_algorithm = True
    timeout = 75  # seconds that a connection may be silent; the watcher drops an idle one after 60

    def do_POST(self):
        if not slots.acquire(blocking=False):
            self.read_body(0)
            return self.answer(503, {"error": {"message": "busy"}}, retry_after=1)  # costs the item no retry
        try:
            body = self.read_body(BODY_MAX)
            too_long = (413, refusal(f"more than {BODY_MAX} bytes"))
            self.answer(*(too_long if body is None else self.deliver(body)))
        finally:
            slots.release()

    def read_body(self, most):
        """The body; None if it is longer. That is read and dropped: a connection that is closed with bytes unread
        is reset, and the answer can be lost."""
        left, parts = int(self.headers["Content-Length"] or 0), []  # gatefeed always sends it
        fits = left <= most
        while left > 0 and (part := self.rfile.read(min(left, 65_536))):
            left -= len(part)
            if fits:
                parts.append(part)
        return b"".join(parts) if fits else None

    def deliver(self, body):
        if not is_genuine(self.headers, body):
            return 401, {"error": {"message": "the signature is missing, wrong or old"}}
        key = self.headers["Idempotency-Key"]
        if answer := answers.get(key):
            return 200, answer  # the work is done, only the answer was lost
        try:
            data = understand(body, self.text("Content-Type"))
            partition, item = self.text("Gatefeed-Partition"), self.text("Gatefeed-Item")
            answer = work(partition, item, int(self.text("Gatefeed-Gate") or 0), data)
        except BadInput as error:
            return 400, refusal(str(error))
        if key:
            remember(answers, key, answer)
        return 200, answer

    def text(self, name):
        """A header's value: gatefeed sends UTF-8, Python reads Latin-1."""
        return (self.headers[name] or "").encode("latin-1").decode().strip(" \t")

    def answer(self, status, fields, retry_after=None):
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_request(self, *_):
        """Not a line for each item."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait to be accepted: a watcher opens many at once


def main():
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", 8080))
    host = os.environ.get("HOST", "127.0.0.1")
    server = Server((host, port), Handler)
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: shutdown() waits for serve_forever(), which runs in this one.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on http://{host}:{server.server_port}/", flush=True)
    server.serve_forever()
    server.server_close()  # who comes now is refused, and comes again
    all(slots.acquire(timeout=10) for _ in range(AT_ONCE))  # all are free once nothing is in work


if __name__ == "__main__":
    main()
