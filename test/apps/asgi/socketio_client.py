"""The client of socketio_test.go: `socketio_client.py URL`.

When it has seen everything work it prints "restart", and then wants to be
connected to another process within ten seconds.
"""
import os
import queue
import sys

import socketio

url = sys.argv[1]


class Person:
    def __init__(self, **options):
        self.events = queue.Queue()
        self.client = socketio.Client(reconnection_delay=0.1, reconnection_delay_max=0.2)
        for name in ("welcome", "said", "negative"):
            self.client.on(name, lambda data, name=name: self.events.put((name, data)))
        self.client.connect(url, wait_timeout=10, **options)

    def next(self, name, timeout=10):
        while True:
            got, data = self.events.get(timeout=timeout)
            if got == name:
                return data


def equal(got, want):
    if got != want:
        sys.exit(f"{got!r}, want {want!r}")


people = [
    Person(),  # polling, then the upgrade
    Person(transports=["polling"]),
    Person(transports=["websocket"]),
]
pids = [person.next("welcome")["pid"] for person in people]
equal([person.client.transport() for person in people], ["websocket", "polling", "websocket"])
for number, person in enumerate(people):
    equal(person.client.call("add", [number, 2, 3], timeout=10), number + 5)
    person.client.emit("picture", b"\x00\x01\xff" * 1000)
    equal(person.next("negative"), b"\xff\xfe\x00" * 1000)
    person.client.emit("everybody", f"hello € {number}")
    for other in people:
        equal(other.next("said")["text"], f"hello € {number}")

try:
    Person(auth={"token": "wrong"})
    sys.exit("the wrong token was good enough")
except socketio.exceptions.ConnectionError:
    pass

print("restart", flush=True)
if sys.stdin.readline():
    for person in people[::2]:  # a poll may take its time
        new = person.next("welcome")
        equal(new["pid"] in pids, False)
        while not person.client.connected:  # the greeting overtakes it
            person.client.sleep(0.01)
        equal(person.client.call("add", [1, 1], timeout=10), 2)
os._exit(0)  # a polling client's disconnect waits for its last poll
