"""Commits an order together with the work that it asks for, on Postgres.

    python3 sql.py postgres://me@localhost/mydb order-1
"""

import json
import sys

import psycopg


def main(url: str, order: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (id text PRIMARY KEY)")
        place(db, order, steps=["invoice", "parcel"])
        try:
            place(db, f"{order}-refused", steps=["invoice"], is_bad=True)
        except ValueError as error:
            print(f"rolled back: {error}")


def place(db: psycopg.Connection, order: str, steps: list[str], is_bad: bool = False) -> None:
    """With the commit the items are there and watchers are woken; with a rollback nothing remains."""
    with db.transaction():
        db.execute("INSERT INTO orders (id) VALUES (%s)", [order])
        # The partition first: an item without one is refused.
        db.execute("INSERT INTO gatefeed_partitions (id) VALUES (%s) ON CONFLICT DO NOTHING", [order])
        with db.cursor() as cursor:
            # Bytes, so that no backslash of the JSON is taken for an escape.
            cursor.executemany(
                "INSERT INTO gatefeed_items (partition_id, id, gate, data) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(order, step, 0, data(order, step)) for step in steps] + [(order, "mail", 1, data(order, "mail"))],
            )
        if is_bad:
            raise ValueError("the order will not do")
    print(f"placed {order}")


def data(order: str, step: str) -> bytes:
    return json.dumps({"order": order, "do": step}).encode()


if __name__ == "__main__":
    main(*sys.argv[1:3])
