"""Says how long the body was that it has read; to GET /?N it answers N zero bytes, 64 KiB at a time."""
PIECE = bytes(1 << 16)


def app(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        size = 0
        while piece := environ["wsgi.input"].read(len(PIECE)):
            size += len(piece)
        answer = [b"%d" % size]
        length = len(answer[0])
    else:
        length = int(environ["QUERY_STRING"])
        answer = (PIECE[: min(len(PIECE), length - at)] for at in range(0, length, len(PIECE)))
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))])
    return answer
