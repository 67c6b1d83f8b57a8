"""Applications in every form that has a name."""


def _app(body):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    return app


class nested:
    class inner:
        app = staticmethod(_app(b"nested"))


def create_app():
    return _app(b"created")


def with_arguments(text, number):
    return _app(("%s%d" % (text, number)).encode())


def broken():
    raise ValueError("no settings")


async def asgi(scope, receive, send):
    raise AssertionError("never called")
