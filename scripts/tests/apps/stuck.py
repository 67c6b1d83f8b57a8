"""Applications that are stuck until they are interrupted, and one that is quick."""

import asyncio
import sys
import threading
import time

from gatecrew_worker import RequestTimeout

from applications import PLAIN, raw, say

# Threads that compute take turns often, so that everything happens at more
# moments, and sooner.
sys.setswitchinterval(0.0002)


def spins(environ, start_response):
    say("busy")
    while True:
        pass


def sleeps(environ, start_response):
    say("busy")
    time.sleep(60)


def locks(environ, start_response):
    lock = threading.Lock()
    lock.acquire()
    say("busy")
    lock.acquire()


async def innermost(event):
    say("busy")
    await event.wait()


async def main():
    await asyncio.gather(innermost(asyncio.Event()), asyncio.sleep(60))


def awaits(environ, start_response):
    asyncio.run(main())


async def computes():
    say("busy")
    while True:
        pass


def spins_in_task(environ, start_response):
    asyncio.run(computes())


def writes(environ, start_response):
    """Is often in the worker's own code."""
    say("busy")
    while True:
        sum(range(10000))
        environ["wsgi.errors"].write("x\n")


def cleans_up(environ, start_response):
    """What an application does about it is its own."""
    say("busy")
    try:
        while True:
            pass
    except Exception:
        say("taken for an Exception")
    except RequestTimeout as exc:
        say("cleaned up: %s" % exc)
        raise
    finally:
        environ["wsgi.errors"].write("finally\n")


def takes(environ, start_response):
    """A little time, all of it in Python code."""
    end = time.perf_counter() + 0.01
    while time.perf_counter() < end:
        pass
    start_response("200 OK", list(PLAIN))
    return [b"took"]


ROUTES = {"/" + f.__name__.replace("_", "-"): f for f in (spins, sleeps, locks, awaits, spins_in_task, writes, cleans_up, takes)}


def app(environ, start_response):
    return ROUTES.get(environ["PATH_INFO"], raw)(environ, start_response)
