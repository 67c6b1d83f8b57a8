"""`raw` with threads that take turns as often as the interpreter lets them."""

import sys

from applications import raw  # noqa: F401

sys.setswitchinterval(1e-6)
