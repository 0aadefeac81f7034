#!/usr/bin/env python3
"""Ranks résumés: `python3 resumes.py [PORT [FILE]]`. See docs/cookbook.md.

Gate 0: an item is a text; its words are counted into the handler's own table.
Gate 1: an item is {"query": "…", "top": 10}; it comes once all texts are counted, and gets the best of them.
"""
import math, re, sys
from collections import Counter
from service import Refused, database, serve

opened = database(
    sys.argv[2] if len(sys.argv) > 2 else "resumes.db",
    """
    CREATE TABLE IF NOT EXISTS words (
        partition TEXT, item TEXT, word TEXT, count INTEGER NOT NULL,
        PRIMARY KEY (partition, item, word)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS words_by_word ON words (partition, word, item);
    """,
)


def words(text):
    return re.findall(r"\w+", text.lower())


def read(delivery):
    try:
        text = delivery.body.decode()
    except UnicodeDecodeError:
        raise Refused("the file is not text in UTF-8")
    counts = Counter(words(text))
    with opened() as db:
        # Under the item's name: a text that comes twice, or is changed and tried again, counts once.
        db.execute("DELETE FROM words WHERE partition = ? AND item = ?", delivery[:2])
        rows = ((*delivery[:2], word, count) for word, count in counts.items())
        db.executemany("INSERT INTO words VALUES (?, ?, ?, ?)", rows)
    return {"data": {"words": sum(counts.values())}}


def rank(delivery):
    query, top = delivery.json().get("query"), delivery.json().get("top", 10)
    if not isinstance(query, str) or not isinstance(top, int):
        raise Refused('expected {"query": "…", "top": 10}')
    scores = Counter()
    with opened() as db:
        (total,) = db.execute("SELECT count(DISTINCT item) FROM words WHERE partition = ?", delivery[:1]).fetchone()
        for word in set(words(query)):
            found = db.execute(
                "SELECT item, count FROM words WHERE partition = ? AND word = ?", (delivery.partition, word)
            ).fetchall()
            for item, count in found:
                # A word tells more the fewer texts have it: only once all are counted can that be known.
                scores[item] += (1 + math.log(count)) * math.log(1 + total / len(found))
    best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:top]
    return {"data": {"of": total, "best": [{"id": item, "score": round(score, 3)} for item, score in best]}}


if __name__ == "__main__":
    serve(lambda delivery: read(delivery) if delivery.gate == 0 else rank(delivery))
