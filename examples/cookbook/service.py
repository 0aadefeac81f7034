"""The HTTP side of a handler, once for all recipes: copy it along. Standard library only.

A recipe is a function: it is given a Delivery and returns the answer's fields as a dict, or Bytes; it raises Refused
where trying again will not help. Whatever else it raises is answered with 500, which gatefeed tries again. Several
deliveries run at the same time, and each may come again: the recipes write what they know under the item's name, so
that the second time changes nothing.
"""
import json, signal, sqlite3, sys, threading, urllib.request
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

BODY_MAX = 16 << 20  # bytes: as much as `gatefeed run` sends unless --max-payload says otherwise
AT_ONCE = 16  # deliveries in work; times BODY_MAX it is the most memory that bodies take


class Refused(Exception):
    """The item has to be mended; what is wrong with it stands in its error_messages."""


class Bytes(NamedTuple):
    """New data that is not JSON; the item is done."""

    body: bytes
    content_type: str


class Delivery(NamedTuple):
    """What came: see docs/handlers.md."""

    partition: str
    item: str
    gate: int
    pass_: int
    body: bytes

    def gathered(self):
        """The items that an item with `gather` asked for, one after the other: {"id", "status", "data"}."""
        body = self.json()
        if "gathered_url" not in body:
            yield from body.get("gathered", [])
            return
        # More than is sent along: it is fetched, an item a line, from the watcher that sent this.
        with urllib.request.urlopen(body["gathered_url"], timeout=60) as lines:
            yield from map(json.loads, lines)

    def json(self):
        """The item's data, which has to be a JSON object."""
        try:
            data = json.loads(self.body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise Refused("the data is not a JSON object")
        return data


def database(path, schema):
    """Makes the handler's own SQLite file if it is missing, and a function that opens it: `with opened() as db:` is
    one transaction."""

    @contextmanager
    def opened():
        with closing(sqlite3.connect(path, timeout=30)) as db, db:  # seconds to wait for another writer
            yield db

    with opened() as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(schema)
    return opened


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    wbufsize = -1  # head and body leave in one write
    disable_nagle_algorithm = True
    timeout = 75  # seconds that a connection may be silent; the watcher drops an idle one after 60

    def do_POST(self):
        slots = self.server.slots
        if not slots.acquire(timeout=10):
            self.read_body(0)
            # Costs the item no retry.
            return self.answer(503, {"error": {"message": "busy"}}, {"Retry-After": "1"})
        try:
            body = self.read_body(BODY_MAX)
            if body is None:
                self.answer(413, {"error": {"message": f"more than {BODY_MAX} bytes", "no_retry": True}})
            else:
                self.deliver(body)
        finally:
            slots.release()

    def deliver(self, body):
        number = lambda name: int(self.text(name) or 0)
        names = self.text("Gatefeed-Partition"), self.text("Gatefeed-Item")
        try:
            answer = self.server.work(Delivery(*names, number("Gatefeed-Gate"), number("Gatefeed-Pass"), body))
        except Refused as error:
            self.answer(400, {"error": {"message": str(error), "no_retry": True}})
        except Exception as error:
            # Its name only: what it says may contain the item's data.
            self.answer(500, {"error": {"message": f"the handler broke down: {type(error).__name__}"}})
        else:
            self.answer(200, answer)

    def text(self, name):
        """A header's value: gatefeed sends UTF-8, Python reads Latin-1."""
        return (self.headers[name] or "").encode("latin-1").decode().strip(" \t")

    def read_body(self, most):
        """The body; None if it is longer. That is read and dropped: a connection that is closed with bytes unread
        is reset, and the answer can be lost."""
        left, parts = int(self.headers["Content-Length"] or 0), []
        fits = left <= most
        while left > 0 and (part := self.rfile.read(min(left, 65_536))):
            left -= len(part)
            if fits:
                parts.append(part)
        return b"".join(parts) if fits else None

    def answer(self, status, answer, headers={}):
        if isinstance(answer, Bytes):
            body, content_type = answer
            headers = {"Gatefeed-Done": "true"}
        else:
            body, content_type = json.dumps(answer).encode(), "application/json"
        self.send_response(status)
        about = {"Content-Type": content_type, "Content-Length": str(len(body))}
        for name, value in {**about, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_request(self, *_):
        """Not a line for each item."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait to be accepted


def serve(work):
    """Serves on 127.0.0.1 and the port in the first argument (0: a free one; 8080 if there is none) until SIGTERM or
    Ctrl-C, and then ends what is in work."""
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Handler)
    server.work, server.slots = work, threading.BoundedSemaphore(AT_ONCE)
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: shutdown() waits for serve_forever(), which runs in this one.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
    server.server_close()  # who comes now is refused, and comes again
    all(server.slots.acquire(timeout=10) for _ in range(AT_ONCE))  # all are free once nothing is in work
