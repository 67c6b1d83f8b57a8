#!/usr/bin/python3
"""Writes its query string, percent-decoded, as the whole answer, head and all.

/raw.py?Status:%20204%0a%0abody is a 204 with a body."""
import os
from urllib.parse import unquote_to_bytes

os.write(1, unquote_to_bytes(os.environ.get("QUERY_STRING", "")))
