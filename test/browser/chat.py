"""A real browser on the chat page of the examples: `chat.py URL [PICTURE.png]`.

Two tabs of a headless Chromium, driven through its DevTools protocol: what
one says, both show; the server's clock ticks; after "restart" was printed and
a line was read, both are to be connected to another process.
"""
import asyncio
import base64
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

import httpx
import websockets.asyncio.client

url, pictures = sys.argv[1], sys.argv[2:]


class Tab:
    @classmethod
    async def open(cls, devtools):
        tab = cls()
        async with httpx.AsyncClient() as client:
            target = (await client.put(f"http://{devtools}/json/new?{url}")).json()
        tab.socket = await websockets.asyncio.client.connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None)
        tab.ids, tab.faults = itertools.count(1), []
        await tab.call("Runtime.enable")
        return tab

    async def call(self, method, **params):
        number = next(self.ids)
        await self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(await asyncio.wait_for(self.socket.recv(), 20))
            if answer.get("method") == "Runtime.exceptionThrown":
                self.faults.append(answer["params"]["exceptionDetails"])
            if answer.get("id") == number:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return answer["result"]

    async def run(self, script):
        return (await self.call("Runtime.evaluate", expression=script, returnByValue=True))["result"].get("value")

    async def until(self, script, seconds=20):
        """Waits until a JavaScript expression is true; its value."""
        for _ in range(seconds * 20):
            if value := await self.run(script):
                return value
            await asyncio.sleep(0.05)
        sys.exit(f"never true: {script}\n{await self.run('document.body && document.body.innerText')}\n{self.faults}")


async def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
             "--window-size=1000,900", f"--user-data-dir={home}", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            await visit(await devtools(pathlib.Path(home, "DevToolsActivePort")))
        finally:
            browser.terminate()
            browser.wait()


async def devtools(file):
    for _ in range(600):
        if file.exists() and file.read_text().strip():
            return "127.0.0.1:" + file.read_text().split()[0]
        await asyncio.sleep(0.05)
    sys.exit("Chromium does not start")


async def visit(address):
    ann, ben = [await Tab.open(address) for _ in range(2)]
    for tab in (ann, ben):
        await tab.until("document.getElementById('state')?.textContent === 'open'")
        await tab.until("document.getElementById('people').textContent === '2'")
    await ann.run("""document.getElementById("name").value = "Ann";
                     document.getElementById("text").value = "hello <b>€</b>";
                     document.querySelector("form").requestSubmit()""")
    for tab in (ann, ben):
        await tab.until("document.getElementById('talk').innerText.includes('Ann hello <b>€</b>')")
    first = await ann.until("document.getElementById('clock').textContent.includes(':') && document.getElementById('clock').textContent")
    await ann.until(f"document.getElementById('clock').textContent !== '{first}'")
    pid = await ann.until("document.getElementById('pid').textContent")
    if pictures:
        shot = await ann.call("Page.captureScreenshot")
        pathlib.Path(pictures[0]).write_bytes(base64.b64decode(shot["data"]))

    print("restart", flush=True)
    if sys.stdin.readline():
        for tab in (ann, ben):
            await tab.until(f"document.getElementById('pid').textContent !== '{pid}'")
            await tab.until("document.getElementById('state').textContent === 'open'")
            await tab.until("document.getElementById('people').textContent === '2'")
    for tab in (ann, ben):
        if tab.faults:
            sys.exit(f"errors in the page: {tab.faults}")


asyncio.run(main())
