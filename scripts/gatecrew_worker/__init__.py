"""The worker process of the gatecrew gateway.

Applications need nothing from here but the exception: `ClientDisconnected`
is what reading `wsgi.input` or calling `write()` raises once the client has
gone.
"""

from gatecrew_worker._connection import ClientDisconnected

__version__ = "0.1.0"
__all__ = ["ClientDisconnected", "__version__"]
