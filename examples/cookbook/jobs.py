#!/usr/bin/env python3
"""Waits for slow jobs without keeping a request open: `python3 jobs.py [PORT]`. See docs/cookbook.md.

An item is {"seconds": 3}: a job that takes so long. The first delivery starts it; each answers "come again in a
second" until it has ended, and then with what came out.
"""
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from service import Refused, serve

LOOKS_MAX = 3600  # times that one item is looked after, a second apart: an hour
JOBS_MAX = 10_000

pool = ThreadPoolExecutor(4)
lock = Lock()
# Gone with the process: then the job is started again. A real one is asked of the service that runs it.
jobs = {}


def job(seconds):
    time.sleep(seconds)
    return {"slept": seconds}


def start(name, seconds):
    """The job of this name, started if it is not known; None if there are too many."""
    with lock:
        if name not in jobs and len(jobs) >= JOBS_MAX:
            jobs.pop(next((name for name, job in jobs.items() if job.done()), None), None)
        if name not in jobs and len(jobs) < JOBS_MAX:
            jobs[name] = pool.submit(job, seconds)
        return jobs.get(name)


def work(delivery):
    data = delivery.json()
    seconds = data.get("seconds")
    if not isinstance(seconds, (int, float)) or not 0 <= seconds <= 60:
        raise Refused("expected seconds from 0 to 60")
    # An answer that asks to come again is an accepted one, so the pass counts how often we have looked, and the
    # Idempotency-Key is another one each time. The job goes by the item's name, which stays.
    if delivery.pass_ >= LOOKS_MAX:
        raise Refused(f"not ready after {LOOKS_MAX} looks")
    name = delivery.partition, delivery.item
    running = start(name, seconds)
    if running is None or not running.done():
        return {"retry_after": 1}
    if error := running.exception():
        with lock:
            del jobs[name]  # the next attempt starts it again
        return {"error": {"message": f"the job failed: {type(error).__name__}"}}
    result = running.result()
    return {"data": {**data, "result": result, "looks": delivery.pass_ + 1}}


if __name__ == "__main__":
    serve(work)
    pool.shutdown(cancel_futures=True)  # what runs ends; what waits is started by the next process
