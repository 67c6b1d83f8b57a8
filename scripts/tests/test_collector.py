"""What was loaded is no work for the garbage collector."""

import gc
import json
import unittest

from gateway import Worker
from test_asgi import AsyncWorker


@unittest.skipUnless(hasattr(gc, "freeze"), "a collector that can set nothing aside")
class SetAside(unittest.TestCase):
    def look(self, worker):
        with worker:
            for _ in range(2):
                self.assertEqual(json.loads(worker.get("/").body), {"listed": 0, "garbage": False, "made since": False, "enabled": True})

    def test_wsgi(self):
        self.look(Worker("collected:wsgi"))
        self.look(Worker("collected:wsgi", threads=4))

    def test_asgi(self):
        """Also what the lifespan has made."""
        self.look(AsyncWorker("collected:asgi"))


if __name__ == "__main__":
    unittest.main()
