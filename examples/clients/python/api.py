"""Pushes a partition over the API, waits until it is through, and prints what became of its items.

    python3 api.py http://127.0.0.1:8081 batch-1
"""

import os
import sys
from urllib.parse import quote

import httpx


def main(url: str, partition: str) -> None:
    token = os.environ.get("GATEFEED_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # Longer than one request waits.
    with httpx.Client(base_url=url, headers=headers, timeout=60) as api:
        # One transaction. Ids of one's own make it safe to repeat: what exists is left as it is.
        body = {
            "id": partition,
            "items": [
                {"id": "page-1", "data": {"text": "two words"}},
                {"id": "page-2", "data": {"text": "three more words"}},
            ],
        }
        pushed = ok(api.post("/v1/partitions", json=body)).json()
        print(f"added {pushed['added']}, there already {pushed['existing']}")

        # A single item: its data is the body, of any type. A second request with the same key adds nothing.
        path = f"/v1/partitions/{quote(partition, safe='')}"
        note = {"content": b"plain text", "params": {"id": "note"}}
        ok(api.post(f"{path}/items", **note, headers={"Content-Type": "text/plain", "Idempotency-Key": "note-1"}))

        while True:
            row = ok(api.get(path, params={"wait": "30s"})).json()
            if row["status"] in ("complete", "failed", "cancelled"):
                break
        print(f"{partition} is {row['status']}")

        after = None
        while True:
            params = {"data": "true"} | ({"after": after} if after else {})
            page = ok(api.get(f"{path}/items", params=params)).json()
            for item in page["items"]:
                print(item["id"], item["status"], item.get("data", "(not text)"))
            after = page["next"]
            if after is None:
                return


def ok(response: httpx.Response) -> httpx.Response:
    """Errors say what is wrong in `detail`; 429 and 503 say in Retry-After when to ask again."""
    if response.is_error:
        problem = response.json() if "json" in response.headers.get("content-type", "") else {}
        raise SystemExit(f"HTTP {response.status_code}: {problem.get('detail', response.reason_phrase)}")
    return response


if __name__ == "__main__":
    main(*sys.argv[1:3])
