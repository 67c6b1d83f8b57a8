"""A file with the name of a module that the worker itself uses."""


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"not the standard library"]
