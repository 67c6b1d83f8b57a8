"""Applications that tell what the garbage collector looks through."""

import gc
import json
import weakref


class Node:
    pass


def ring():
    """Objects that only the collector can free."""
    node = Node()
    node.itself = node
    return node


enabled = gc.isenabled()
gc.disable()
KEPT = [ring() for _ in range(1000)]
GARBAGE = weakref.ref(ring())
if enabled:
    gc.enable()


def found():
    made = weakref.ref(ring())
    gc.collect()
    return json.dumps({
        "listed": sum(type(o) is Node for o in gc.get_objects()), "garbage": GARBAGE() is not None,
        "made since": made() is not None, "enabled": gc.isenabled(),
    }).encode()


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [found()]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        KEPT.extend(ring() for _ in range(1000))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": found()})
