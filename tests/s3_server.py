"""A local S3 server: moto on the loopback interface, one request at a time, with faults on demand.

    python tests/s3_server.py

Prints its port and serves until its standard input ends. ``POST /-/faults?status=503&count=4`` lets the next four
requests fail; with ``status=0`` they are obeyed, but the connection breaks before the answer; with ``&every=7`` each
seventh fails, and several statuses take turns. ``GET /-/requests`` gives the list of requests since the last such call.
Parts of multipart uploads may be as small as one byte.
"""

import json
import os
import socket
import sys
import threading
from urllib.parse import parse_qs

os.environ["S3_UPLOAD_PART_MIN_SIZE"] = "1"

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

BUSY = b"<Error><Code>ServiceUnavailable</Code><Message>Please reduce your request rate.</Message></Error>"


class FaultyStore:
    """moto behind a lock: it looks at a condition and then writes, and two requests could come between."""

    def __init__(self):
        self.app = DomainDispatcherApplication(create_backend_app)
        self.lock, self.statuses, self.left, self.every, self.seen = threading.Lock(), [503], 0, 1, []

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        with self.lock:
            if path.startswith("/-/"):
                return self._control(path, environ, start_response)
            self.seen.append([environ["REQUEST_METHOD"], path, environ["QUERY_STRING"]])
            if self.left > 0 and len(self.seen) % self.every == 0:
                self.left -= 1
                return self._fail(self.statuses[self.left % len(self.statuses)], environ, start_response)
            return list(self.app(environ, start_response))

    def _fail(self, status, environ, start_response):
        if status == 0:
            list(self.app(environ, start_response))
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(f"{status} Fault", [("Content-Type", "application/xml")])
        return [BUSY]

    def _control(self, path, environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        if path == "/-/faults":
            asked = parse_qs(environ["QUERY_STRING"])
            self.statuses, self.left = [int(status) for status in asked["status"]], int(asked["count"][0])
            self.every = int(asked.get("every", "1")[0])
            return [b"{}"]
        seen, self.seen = self.seen, []
        return [json.dumps(seen).encode()]


def main() -> None:
    server = make_server("127.0.0.1", 0, FaultyStore(), threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
