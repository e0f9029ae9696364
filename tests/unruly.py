"""A web server that serves files in ranges and misbehaves as it is told.

It runs in a process of its own: some calls of rasterio hold the interpreter's lock while GDAL waits for an
answer, so that a server in a thread of the tests could not give it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

WELL = {"trouble": "", "first": 1, "last": 10**9, "etag": '"one"', "location": "", "head": 0}
"""What it can be told: the trouble it makes, from which request to which; how it answers HEAD."""


class Unruly:
    """The server, as seen by a test."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, __file__, str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.base = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def tell(self, **how) -> list[list[str]]:
        """Behave so from the next request on, which is number 1; gives the requests so far."""
        body = json.dumps({**WELL, **how}).encode()
        with urllib.request.urlopen(f"{self.base}/", body) as answer:  # noqa: S310 - our own
            return json.load(answer)

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of files, with ranges; POST changes the behaviour."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told, seen, self.server.seen = told, self.server.seen, []
        self.answer(200, json.dumps(seen).encode())

    def do_GET(self):
        told = self.server.told
        with self.server.lock:
            self.server.seen.append([self.command, self.path, self.headers.get("Range", "")])
            number = len(self.server.seen)
        if self.command == "HEAD" and told["head"]:
            self.answer(told["head"])
        elif told["location"] and "moved" in self.path:
            self.answer(302, location=told["location"])
        else:
            self.serve(told["trouble"] if told["first"] <= number <= told["last"] else "")

    do_HEAD = do_GET

    def serve(self, trouble):
        if trouble.isdigit():
            self.answer(int(trouble), b"sorry")
        elif trouble in {"reset", "silent", "no http"}:
            getattr(self, trouble.replace(" ", "_"))()
        else:
            self.file(trouble)

    def reset(self):
        # Closed at once, without a farewell.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def silent(self):
        time.sleep(3)
        self.close_connection = True

    def no_http(self):
        self.wfile.write(b"220 mail ready\r\n\r\n")
        self.close_connection = True

    def file(self, trouble):
        path = self.server.folder / Path(urlsplit(self.path).path).name
        if not path.is_file():
            self.answer(404)
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        if not asked or trouble == "no ranges":
            self.answer(200, content)
            return
        first, _, last = asked.partition("=")[2].partition("-")
        first, last = int(first), min(int(last or len(content)), len(content) - 1)
        if first > last:
            self.answer(416)
            return
        body = content[first : last + 1]
        sent = {"half": body[: len(body) // 2], "nothing": b""}.get(trouble)
        self.answer(206, body, sent, content_range=f"bytes {first}-{last}/{len(content)}")

    def answer(self, code, body=b"", sent=None, **headers):
        """Promise a body, and send that or less of it."""
        self.send_response(code)
        self.send_header("ETag", self.server.told["etag"])
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if sent is None else sent)
        self.close_connection = self.close_connection or sent is not None

    def log_message(self, *_):
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """What all requests share."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.told, self.seen, self.lock = folder, WELL, [], threading.Lock()

    def handle_error(self, request, client_address):
        """Broken pipes are what it is for."""


if __name__ == "__main__":
    with Server(Path(sys.argv[1])) as server, contextlib.suppress(KeyboardInterrupt):
        print(server.server_port, flush=True)  # noqa: T201 - to whom started it
        server.serve_forever()
