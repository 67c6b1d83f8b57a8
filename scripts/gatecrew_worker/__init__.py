"""The worker process of the gatecrew gateway.

Applications need nothing from here but the exceptions: `ClientDisconnected`
is what reading `wsgi.input` or calling `write()` raises once the client has
gone, and `RequestTimeout` is raised in a request that took longer than the
pool's timeout, wherever it is.
"""

from gatecrew_worker._connection import ClientDisconnected
from gatecrew_worker._interrupt import RequestTimeout

__version__ = "0.1.0"
__all__ = ["ClientDisconnected", "RequestTimeout", "__version__"]
