#!/usr/bin/env python3
"""Moves large bodies over a few kept connections and says what it saw as one line of JSON, in wrk.lua's words.

usage: transfer.py PORT PATH SECONDS CONNECTIONS [UPLOAD_BYTES]

wrk reads 8 KiB at a time, so that with large bodies one measures wrk. This one has the kernel drop what is received
(MSG_TRUNC, tcp(7)) and sends a body from one buffer. A request that has begun is brought to its end, and counts.
"""
import collections
import json
import re
import socket
import sys
import threading
import time

PIECE = 1 << 20
MOST_HEAD = 1 << 16


class Broken(Exception):
    """An answer that isn't one, or one that ended early."""


def answer(connection, buffer):
    """Reads one answer; returns its status, how long its body was, and whether the connection is to be closed."""
    head, end = b"", -1
    while end < 0:
        # Looked at first, so that only the head is read: what follows is to be dropped unread.
        seen = connection.recv(MOST_HEAD, socket.MSG_PEEK)
        if not seen or len(head) > MOST_HEAD:
            raise Broken
        end = (head + seen).find(b"\r\n\r\n")
        head += connection.recv(len(seen) if end < 0 else end + 4 - len(head))
    length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", head, re.I)
    if not length:
        raise Broken  # every answer here has a length that is known beforehand
    left = int(length.group(1))
    while left:
        got = connection.recv_into(buffer, min(left, PIECE), socket.MSG_TRUNC)
        if not got:
            raise Broken
        left -= got
    return int(head.split(b" ", 2)[1]), int(length.group(1)), b"\r\nconnection: close" in head.lower()


def client(port, head, body, until, seen, trips):
    """One connection: requests until the time has come, at least one."""
    connection, buffer, began = None, bytearray(PIECE), 0
    while not began or time.monotonic() < until:
        began = time.monotonic()
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), 30)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(head)
            if body:
                connection.sendall(body)
            status, length, close = answer(connection, buffer)
        except (OSError, ValueError, IndexError, Broken) as error:
            seen["timeout" if isinstance(error, socket.timeout) else "connect" if connection is None else "read"] += 1
            if connection:
                connection.close()
            connection = None
            time.sleep(0.01)
            continue
        if close:
            connection.close()
            connection = None
        seen["status"] += status >= 400
        seen["requests"] += 1
        seen["bytes"] += length + len(body)
        trips.append((time.monotonic() - began) * 1e6)
    if connection:
        connection.close()


def main():
    port, path, seconds, connections = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    body = memoryview(bytes(int(sys.argv[5]))) if len(sys.argv) > 5 else b""
    head = f"{'POST' if len(sys.argv) > 5 else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if len(sys.argv) > 5:
        head += f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n"
    seen, trips = [collections.Counter() for _ in range(connections)], [[] for _ in range(connections)]
    began = time.monotonic()
    clients = [threading.Thread(target=client, args=(port, (head + "\r\n").encode(), body, began + seconds, seen[i], trips[i])) for i in range(connections)]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    total, all_trips = sum(seen, collections.Counter()), sorted(t for each in trips for t in each) or [0]
    at = lambda q: round(all_trips[min(len(all_trips) - 1, int(q * len(all_trips)))])
    print(json.dumps({"seconds": time.monotonic() - began, "p50_us": at(.5), "p99_us": at(.99),
                      **{what: total[what] for what in ("requests", "bytes", "connect", "read", "write", "timeout", "status")}}))


if __name__ == "__main__":
    main()
