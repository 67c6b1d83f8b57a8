"""The client of frameworks_test.go: `client.py URL FRAMEWORK FILE`.

It works with the site below URL as its users do, over httpx and websockets,
and says what is not as it should be.
"""
import asyncio
import hashlib
import os
import sys
import time

import httpx
import websockets.asyncio.client

url, framework, path = sys.argv[1:]
with open(path, "rb") as opened:
    content = opened.read()


def check(condition, *what):
    if not condition:
        print(framework + ":", *what)
        check.failed = True


check.failed = False


async def until(what, condition):
    deadline = time.monotonic() + 5
    while not await condition():
        if time.monotonic() > deadline:
            return check(False, "did not happen:", what)
        await asyncio.sleep(0.02)


async def main():
    async with httpx.AsyncClient(timeout=20) as client:
        async def report():
            return (await client.get(url + "/report")).json()

        async def ended(what):
            return any(entry.startswith(what) for entry in (await report())["ended"])

        r = await client.get(url + "/")
        check(r.status_code == 200 and r.text.startswith(framework + " started"), "index", r.status_code, r.text)
        check(r.text.split()[-1].rstrip("/") == url, "the site takes itself to be at", r.text.split()[-1])

        # Two people in a room; one leaves properly, the other is cut off.
        chat = url.replace("http:", "ws:") + "/chat"
        connect = websockets.asyncio.client.connect
        async with connect(chat, subprotocols=["chat"], proxy=None) as ann, connect(chat, subprotocols=["chat"], proxy=None) as ben:
            check(ann.subprotocol == "chat", "subprotocol", ann.subprotocol)
            for text in ("hello €", "x" * 70_000):
                await ann.send(text)
                got = [await asyncio.wait_for(member.recv(), 5) for member in (ann, ben)]
                check(got == [text, text], "chat", [member[:100] for member in got])
            await ann.close(4000)
            ben.transport.abort()

        async def both_left():
            return sum(entry.startswith("chat") for entry in (await report())["ended"]) == 2
        await until("both have left the chat", both_left)

        # Events as they come; the generator ends when nobody listens.
        began = time.monotonic()
        async with client.stream("GET", url + "/events") as stream:
            lines = stream.aiter_lines()
            seen = [line async for line in take(lines, 6)]
        check(seen[::2] == ["data: 0", "data: 1", "data: 2"], "events", seen)
        check(time.monotonic() - began < 2, "events came late")
        await until("the stream of events ends", lambda: ended("events"))

        size = 20 << 20
        noise = os.urandom(1 << 20) * 20
        r = await client.post(url + "/upload", files={"file": ("noise.bin", noise)})
        check(r.status_code == 200 and r.json() == {"bytes": size, "sha256": hashlib.sha256(noise).hexdigest()}, "upload", r.status_code, r.text[:500])

        began = time.monotonic()
        r = await client.post(url + "/later")
        check(r.text == "soon" and time.monotonic() - began < 0.25, "the answer waited for the background task", r.text)

        async def worked():
            return (await report())["done"] == ["work"]
        await until("the background task", worked)

        for name in ("/file", "/static/" + os.path.basename(path)):
            r = await client.get(url + name)
            check(r.status_code == 200 and r.content == content, name, r.status_code, len(r.content), r.headers)
            r = await client.head(url + name)
            check(r.status_code in (200, 405) and r.content == b"", "HEAD", name, r.status_code)
        if "pathsend" in (last := await report()):  # those that can make use of it
            check(last["pathsend"], "http.response.pathsend is not offered")
        r = await client.get(url + "/fail", headers={"Connection": "close"})
        check(r.status_code == 500, "fail", r.status_code)
        r = await client.get(url + "/nothing/here")
        check(r.status_code == 404, "nothing here", r.status_code)
        await asyncio.gather(*(client.get(url + "/") for _ in range(50)))


async def take(lines, count):
    while count:
        yield await lines.__anext__()
        count -= 1


asyncio.run(main())
sys.exit(check.failed)
