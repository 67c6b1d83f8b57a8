#!/usr/bin/python3
import datetime, email.message, html, http.cookies, json, logging, os, re, sqlite3, urllib.parse
form = urllib.parse.parse_qs(os.environ.get("QUERY_STRING", ""))
print("Content-Type: text/html\r\n\r\n<p>" + html.escape(str(datetime.datetime.now())) + json.dumps(form))
