#!/usr/bin/env python3
"""Goes through a folder and what is under it: `python3 folder.py [PORT [FILE [ROOT]]]`. See docs/cookbook.md.

Gate 0: an item is {"folder": "photos"}; its entries become items, a chunk at a time.
Gate 1: an item is {"file": "photos/a.png"}; its size and its lines are counted into the handler's own table.
Gate 2: the item that began it comes back once all files are through, and gets the sums.
"""
import heapq, os, sys
from pathlib import Path
from service import Refused, database, serve

# An answer may add 10,000 items and has to fit into --max-answer, 1 MiB: at this number, a kilobyte for each.
CHUNK = int(os.environ.get("CHUNK", 1000))
ID_BYTES_MAX = 512

# Whoever may add items could else have any file read.
root = Path(sys.argv[3] if len(sys.argv) > 3 else ".").resolve()
opened = database(
    sys.argv[2] if len(sys.argv) > 2 else "folder.db",
    """
    CREATE TABLE IF NOT EXISTS files (
        partition TEXT, path BLOB, bytes INTEGER NOT NULL, lines INTEGER NOT NULL,
        PRIMARY KEY (partition, path)
    ) WITHOUT ROWID;
    """,
)


def inside(path):
    """The path below the root that an item names."""
    full = (root / path).resolve() if isinstance(path, str) and "\0" not in path else root.parent
    if not full.is_relative_to(root):
        raise Refused("the path is not under the root")
    return full


def child(folder, entry):
    path = os.path.join(folder, entry.name)
    if entry.is_dir(follow_symlinks=False):
        item = {"data": {"folder": path, "part": True}}
    else:
        item = {"data": {"file": path}, "gate": 1}
    if path.isprintable() and len(path.encode()) <= ID_BYTES_MAX:
        item["id"] = path  # else gatefeed makes one up, from the parent's and the place in the list
    return item


def is_ours(entry):
    """Links are not followed: they may lead in circles, and out of the root."""
    return entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)


def entries(folder, after):
    """The next entries by name: by the last name and not by a count, since folders change under our hands."""
    try:
        with os.scandir(inside(folder)) as found:
            wanted = (e for e in found if e.name > after and (is_ours(e)))
            return heapq.nsmallest(CHUNK, wanted, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise Refused(f"the folder cannot be read: {error.strerror}")


def fan_out(data):
    folder, after = data.get("folder"), data.get("after", "")
    chunk = entries(folder, after)
    items = [child(folder, entry) for entry in chunk]
    if len(chunk) == CHUNK:
        # There may be more: an item of its own goes on from here.
        items.append({"data": {"folder": folder, "after": chunk[-1].name, "part": True}})
    if data.get("part"):
        return {"items": items}
    return {"items": items, "gate": 2}


def measure(delivery, path):
    try:
        with open(inside(path), "rb") as file:
            size, lines = 0, 0
            while part := file.read(1 << 20):
                size, lines = size + len(part), lines + part.count(b"\n")
    except OSError as error:
        raise Refused(f"the file cannot be read: {error.strerror}")
    with opened() as db:
        # Under the file's name: one that comes twice counts once.
        db.execute("REPLACE INTO files VALUES (?, ?, ?, ?)", (delivery.partition, os.fsencode(path), size, lines))
    return {"data": {"file": path, "bytes": size, "lines": lines}}


def sum_up(delivery, folder):
    query = "SELECT count(*), coalesce(sum(bytes), 0), coalesce(sum(lines), 0) FROM files WHERE partition = ?"
    with opened() as db:
        files, size, lines = db.execute(query, (delivery.partition,)).fetchone()
    return {"data": {"folder": folder, "files": files, "bytes": size, "lines": lines}}


def work(delivery):
    data = delivery.json()
    if delivery.gate == 0 and "folder" in data:
        return fan_out(data)
    if delivery.gate == 1 and "file" in data:
        return measure(delivery, data["file"])
    if delivery.gate == 2 and "folder" in data:
        return sum_up(delivery, data["folder"])
    raise Refused('expected {"folder": "…"} at gate 0 or {"file": "…"} at gate 1')


if __name__ == "__main__":
    serve(work)
