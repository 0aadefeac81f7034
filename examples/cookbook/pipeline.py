#!/usr/bin/env python3
"""A tree of next jobs: `python3 pipeline.py [PORT [FOLDER]]`. See docs/cookbook.md.

An item is {"text": "…"}. It is prepared, and its answer adds what comes next:

    prepare → compute → upload → clean, database, e-mail

Each names the one that it depends on and takes that one's output as its data, so that the handler remembers nothing.
"""
import sys
from pathlib import Path
from service import Refused, serve

folder = Path(sys.argv[2] if len(sys.argv) > 2 else "uploads").resolve()


def prepare(delivery, data):
    if not isinstance(data.get("text"), str):
        raise Refused('expected {"text": "…"}')
    next_jobs = [
        # Without depends_on: the item that adds it.
        job(delivery, "compute"),
        job(delivery, "upload", "compute"),
        job(delivery, "database", "upload"),
        job(delivery, "e-mail", "upload"),
        # Tidied up whether it could be uploaded or not.
        {**job(delivery, "clean", "upload"), "on_dependency_failure": "run"},
    ]
    return {"data": {"words": data["text"].split()}, "items": next_jobs}


def job(delivery, name, after=None):
    item = {"id": f"{delivery.item}/{name}", "input": "parent"}
    return {**item, "depends_on": [f"{delivery.item}/{after}"]} if after else item


def compute(delivery, data):
    return {"data": {"count": len(data["words"]), "longest": max(data["words"], key=len, default="")}}


def upload(delivery, data):
    if not data["count"]:
        raise Refused("nothing to upload")
    folder.mkdir(exist_ok=True)
    name = delivery.item.split("/")[0].encode().hex() + ".txt"  # whatever the id is, a file in this folder
    (folder / name).write_text(f"{data['count']} {data['longest']}\n")  # the second time writes the same
    return {"data": {**data, "file": name}}


def note(delivery, data):
    """Where a service of yours would be asked to do it; Idempotency-Key is what to hand on."""
    return {"data": {"done": delivery.item.split("/")[1], "file": data.get("file")}}


STEPS = {"compute": compute, "upload": upload, "clean": note, "database": note, "e-mail": note}


def work(delivery):
    _, _, step = delivery.item.partition("/")
    if step and step not in STEPS:
        raise Refused(f"no such step: {step}")
    return (STEPS[step] if step else prepare)(delivery, delivery.json())


if __name__ == "__main__":
    serve(work)
