#!/usr/bin/env python3
"""Ranks résumés: `python3 resumes.py [PORT]`. See docs/cookbook.md.

Gate 0: an item is a text; its words are counted, and the counts become its data.
Gate 1: an item is {"query": "…", "top": 10} and gathers gate 0: it comes once all texts are counted, with their counts,
and gets the best of them.
"""
import math, re
from collections import Counter
from service import Refused, serve


def words(text):
    return re.findall(r"\w+", text.lower())


def read(delivery):
    try:
        text = delivery.body.decode()
    except UnicodeDecodeError:
        raise Refused("the file is not text in UTF-8")
    counts = Counter(words(text))
    return {"data": {"words": sum(counts.values()), "counts": counts}}


def rank(delivery):
    asked = delivery.json().get("data")
    query, top = (asked.get("query"), asked.get("top", 10)) if isinstance(asked, dict) else (None, None)
    if not isinstance(query, str) or not isinstance(top, int):
        raise Refused('expected {"query": "…", "top": 10} and gather')
    total, found = 0, {word: {} for word in words(query)}
    for item in delivery.gathered():
        total += 1
        for word in found.keys() & item["data"]["counts"].keys():
            found[word][item["id"]] = item["data"]["counts"][word]
    scores = Counter()
    for counts in found.values():
        for item, count in counts.items():
            # A word tells more the fewer texts have it: only once all are counted can that be known.
            scores[item] += (1 + math.log(count)) * math.log(1 + total / len(counts))
    best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:top]
    return {"data": {"of": total, "best": [{"id": item, "score": round(score, 3)} for item, score in best]}}


if __name__ == "__main__":
    serve(lambda delivery: read(delivery) if delivery.gate == 0 else rank(delivery))
