def app(environ, start_response):
    for _ in range(500):
        environ["wsgi.errors"].write("x" * 9999 + "\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"after the flood"]
