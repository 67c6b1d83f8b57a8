#!/usr/bin/python3
"""What was posted, as it was encoded, one field a line; before them a line
"METHOD TYPE LENGTH". Reads CONTENT_LENGTH bytes and not to the end, as most
scripts do. The same from form.sh and form.c; form.pl is made with CGI.pm."""
import os
import sys

length = int(os.environ["CONTENT_LENGTH"])
print("Content-Type: text/plain\n")
print(os.environ["REQUEST_METHOD"], os.environ["CONTENT_TYPE"], length)
print(sys.stdin.read(length).replace("&", "\n"))
