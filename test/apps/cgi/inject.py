#!/usr/bin/python3
"""Echoes the parameter v, decoded, in a header field, as a careless script would."""
import os
from urllib.parse import unquote_to_bytes

query = dict(pair.partition("=")[::2] for pair in os.environ.get("QUERY_STRING", "").split("&"))
os.write(1, b"Content-Type: text/plain\nX-Echo: " + unquote_to_bytes(query.get("v", "")) + b"\n\nbody")
