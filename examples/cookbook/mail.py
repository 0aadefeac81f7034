#!/usr/bin/env python3
"""A chain over three gates, over mail: `python3 mail.py [PORT]`. See docs/cookbook.md.

Gate 0 takes a mail apart, gate 1 finds its topic, gate 2 writes the line of the report. What a gate found travels in
the item's data, so the handler remembers nothing.
"""
import email, email.policy
from service import Refused, serve

TOPICS = {
    "billing": ("invoice", "refund", "charged", "payment"),
    "fault": ("error", "crash", "broken", "does not work"),
    "praise": ("thank", "love", "great"),
}
UNWANTED = ("lottery", "casino")


def extract(delivery):
    mail = email.message_from_bytes(delivery.body, policy=email.policy.default)
    part = mail.get_body(("plain",))
    if not mail["From"] or part is None:
        raise Refused("no mail: it has no From, or no plain text")
    try:
        text = part.get_content().strip()
    except LookupError:
        raise Refused("the text is in an unknown charset")
    return {"data": {"from": mail["From"], "subject": mail["Subject"] or "", "text": text}, "gate": 1}


def classify(delivery):
    data = delivery.json()
    text = f"{data['subject']} {data['text']}".lower()
    if any(word in text for word in UNWANTED):
        return {"data": {**data, "topic": "unwanted"}, "done": True}  # the rest of the chain is not for this one
    hits = {topic: sum(text.count(word) for word in hints) for topic, hints in TOPICS.items()}
    topic = max(hits, key=hits.get)
    return {"data": {**data, "topic": topic if hits[topic] else "other"}, "gate": 2}


def report(delivery):
    data = delivery.json()
    return {"data": {"topic": data["topic"], "line": f"{data['topic']}: {data['subject']} ({data['from']})"}}


GATES = (extract, classify, report)


def work(delivery):
    if delivery.gate >= len(GATES):
        raise Refused(f"there is nothing to do at gate {delivery.gate}")
    return GATES[delivery.gate](delivery)


if __name__ == "__main__":
    serve(work)
