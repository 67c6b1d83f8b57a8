"""Asynchronous views of Django under WSGI: each runs in an event loop in a
thread of its own, for which the thread of the request waits."""
import asyncio
import os
import time

from asgiref.sync import AsyncToSync, sync_to_async
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", MIDDLEWARE=[])


async def awaits(request):
    await asyncio.gather(asyncio.Event().wait(), asyncio.sleep(1000))


async def nested(request):
    """Waits within synchronous code that has been called from a loop."""
    from asgiref.sync import async_to_sync

    await sync_to_async(async_to_sync(awaits))(request)


async def leaves(request):
    """Synchronous code that is called from a loop runs in the request's thread."""
    await sync_to_async(sleeps)()


def sleeps():
    time.sleep(1000)


async def computes(request):
    while True:
        pass


async def refuses(request):
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass


async def nap(request):
    await asyncio.sleep(0.15)
    return HttpResponse("%d" % os.getpid())


def index(request):
    assert not AsyncToSync.loop_thread_executors, "a loop goes on that nobody waits for"
    return HttpResponse("%d" % os.getpid())


urlpatterns = [path("", index)] + [path(f.__name__, f) for f in (awaits, nested, leaves, computes, refuses, nap)]
app = get_wsgi_application()
