#!/usr/bin/python3
"""Reads standard input to its end and says what it was, as JSON:
{"bytes": n, "sha256": "…", "content_length": "…" or null}."""
import hashlib
import json
import os

digest, size = hashlib.sha256(), 0
while block := os.read(0, 1 << 16):
    digest.update(block)
    size += len(block)
print("Content-Type: application/json\n")
print(json.dumps({"bytes": size, "sha256": digest.hexdigest(), "content_length": os.environ.get("CONTENT_LENGTH")}))
