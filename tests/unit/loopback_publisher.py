"""A publisher's web server on this machine's loopback, for the tests of downloads.

It can be told to answer well or badly, and it counts what it was asked.
"""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b"".join(b"%d,%d\n" % (n, n * n) for n in range(30_000))  # larger than one chunk
SHA256 = hashlib.sha256(BODY).hexdigest()


class Publisher:
    """A running server: ``url``, ``gets`` (how often it was asked), ``answer`` (what it does)."""

    def __init__(self):
        self.gets = 0
        self.answer = whole
        self.asked = threading.Event()  # a request has come
        self.proceed = threading.Event()  # answers that wait, wait for this; set at the end
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                publisher.gets += 1
                publisher.asked.set()
                publisher.answer(publisher, self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/numbers.csv"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.proceed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def send(handler, body, *, status=200, length=None, **headers):
    handler.send_response(status)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def whole(publisher, handler):
    send(handler, BODY, length=len(BODY))


def whole_when_told(publisher, handler):
    publisher.proceed.wait(60)
    whole(publisher, handler)


def truncated(publisher, handler):
    send(handler, BODY[:-1000], length=len(BODY))


def truncated_without_a_length(publisher, handler):
    send(handler, BODY[:-1000])


def other_bytes(publisher, handler):
    send(handler, BODY[::-1], length=len(BODY))


def login_page(publisher, handler):
    page = b"<!DOCTYPE html><title>Please log in</title>"
    send(handler, page, length=len(page))


def forbidden(publisher, handler):
    handler.send_error(403)


def not_found(publisher, handler):
    handler.send_error(404)


def moved_and_found(publisher, handler):
    if handler.path == "/moved":
        whole(publisher, handler)
    else:
        send(handler, b"", status=302, length=0, Location="/moved")


def silent(publisher, handler):
    publisher.proceed.wait(60)


def half_then_silent(publisher, handler):
    send(handler, BODY[: len(BODY) // 2], length=len(BODY))
    publisher.proceed.wait(60)


def hangs_up(publisher, handler):
    handler.connection.close()


def endless(publisher, handler):
    try:
        send(handler, b"")
        while not publisher.proceed.is_set():
            handler.wfile.write(b"x" * 65_536)
    except OSError:
        publisher.proceed.set()  # the other side has had enough
