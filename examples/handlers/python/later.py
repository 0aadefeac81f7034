#!/usr/bin/env python3
"""A gatefeed handler that answers later: it takes an item at once, and calls back when the work is done. Standard library
only.

    python3 later.py 8080
    gatefeed run --target http://127.0.0.1:8080/ --listen 127.0.0.1:8081

An item is {"seconds": 3}: so long the work takes. It waits in the database meanwhile, and costs the watcher nothing.
"""
import json, os, signal, sys, threading, time, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_MAX = 1 << 20
HEARTBEAT = 20  # seconds; well below the watcher's --callback-timeout
TRIES = 60  # calls that nobody takes, a second apart

lock = threading.Lock()
under_way = {}  # Idempotency-Key → where to call back. Gone with the process: then the time runs out, and it comes again.


def call(url, answer=None):
    """Calls back; returns the status. What is not taken for now is tried again; what is refused is refused for good."""
    body = b"" if answer is None else json.dumps(answer).encode()
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST"), timeout=30) as taken:
                return taken.status
        except urllib.error.HTTPError as refused:  # 409: it has its outcome; 410: too late; 400: look into the detail
            if refused.code != 503:
                print(f"not taken: {refused.code} {refused.read().decode()}", file=sys.stderr, flush=True)
                return refused.code
        except OSError:
            pass  # nobody is there just now
        time.sleep(1)


def work(key, data):
    seconds = float(data["seconds"])
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, HEARTBEAT))
        if time.monotonic() < until:
            call(under_way[key] + "/heartbeat")
    with lock:
        url = under_way.pop(key)
    call(url, {"data": {"seconds": seconds, "done": True}})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write
    timeout = 75

    def do_POST(self):
        body = self.rfile.read(min(int(self.headers["Content-Length"] or 0), BODY_MAX))
        key, url = self.headers["Idempotency-Key"], self.headers["Gatefeed-Callback"]
        try:
            data = json.loads(body)
            float(data["seconds"])
        except (ValueError, TypeError, KeyError):
            return self.answer(400, {"error": {"message": 'expected {"seconds": 3}', "no_retry": True}})
        if not url:
            return self.answer(500, {"error": {"message": "no Gatefeed-Callback: start the watcher with --listen"}})
        with lock:
            # The same work again: it goes on, and is called back for where the newest delivery says.
            is_new = key not in under_way
            under_way[key] = url
        if is_new:
            threading.Thread(target=work, args=(key, data), daemon=True).start()
        self.answer(202, None)

    def answer(self, status, fields):
        body = b"" if fields is None else json.dumps(fields).encode()
        self.send_response(status)
        if status == 202:
            self.send_header("Gatefeed-Async", "true")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_request(self, *_):
        """Not a line for each item."""


def main():
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", 8080))
    host = os.environ.get("HOST", "127.0.0.1")
    server = ThreadingHTTPServer((host, port), Handler)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"listening on http://{host}:{server.server_port}/", flush=True)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
