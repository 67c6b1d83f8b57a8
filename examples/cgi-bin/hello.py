#!/usr/bin/env python3
"""The smallest useful CGI script: read the query string, print a page."""
import html
import os
import platform
from urllib.parse import parse_qs

query = parse_qs(os.environ.get("QUERY_STRING", ""))
name = html.escape(query.get("name", ["stranger"])[0])

print("Content-Type: text/html; charset=ascii")
print()
print(f"""<!DOCTYPE html>
<html lang="en"><head><title>hello.py</title><link rel="stylesheet" href="/style.css"></head>
<body>
<a class="back" href="/">&larr; all examples</a>
<h1>Hello, {name}!</h1>
<p class="lead">Python {platform.python_version()} started for this page as process {os.getpid()}, and is gone by now.</p>
<form>
  <label>Somebody else? <input name="name" value="{name}" autofocus></label>
  <button>Greet</button>
</form>
</body></html>""".encode("ascii", "xmlcharrefreplace").decode())
