"""flask_app.py, with both sides held to PEP 3333."""
from wsgiref.validate import validator

from flask_app import app


class Input:
    """wsgi.input with the optional argument of read(), which wsgiref.validate
    demands and Werkzeug leaves out."""

    def __init__(self, checked):
        self._checked = checked

    def __getattr__(self, name):
        return getattr(self._checked, name)

    def read(self, size=-1):
        return self._checked.read(size)


def site(environ, start_response):
    environ["wsgi.input"] = Input(environ["wsgi.input"])
    return app(environ, start_response)


application = validator(site)
