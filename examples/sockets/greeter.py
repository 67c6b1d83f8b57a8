#!/usr/bin/env python3
"""Greets whoever gives a name. Each line of input is a message from the page."""

import os
import sys

print(f"Hello, {os.environ['REMOTE_ADDR'] or 'whoever you are'}. What is your name?", flush=True)
for line in sys.stdin:  # it ends when the page is closed
    print(f"Good day, {line.strip()}!", flush=True)
