#!/usr/bin/python3
"""Ends badly, or well, as the query says:

head=none|part|full  how much of the head is written (full)
length=N             the head says Content-Length: N (it says nothing)
sent=N               bytes of body written, "b" each (0)
code=N               exit status (0)
signal=N             kills itself with this signal instead of exiting
"""
import os
from urllib.parse import parse_qs

query = {name: values[0] for name, values in parse_qs(os.environ.get("QUERY_STRING", "")).items()}
head = b"Content-Type: text/plain\n"
if "length" in query:
    head += b"Content-Length: %d\n" % int(query["length"])
head += b"\n"
answer = {
    "none": b"",
    "part": head[:20],
    "full": head + b"b" * int(query.get("sent", 0)),
}[query.get("head", "full")]
while answer:
    answer = answer[os.write(1, answer):]
if "signal" in query:
    os.kill(os.getpid(), int(query["signal"]))
os._exit(int(query.get("code", 0)))
