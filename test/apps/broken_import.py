"""Can't be imported: the traceback belongs into the log and into the message
of a gateway that does not start."""
import no_such_module_anywhere  # noqa: F401


def application(environ, start_response):
    start_response("200 OK", [])
    return []
