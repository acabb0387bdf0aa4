"""A local HTTP server of a few files, with the troubles that downloads must survive."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ArchiveServer(ThreadingHTTPServer):
    """Serves `files` (name to content).

    Attributes:
        ranges: Whether it answers requests for a part of a file with that part.
        cuts: After how many bytes it hangs up, one for each request to come; then no more.
        failures: Status codes with which it answers the requests to come.
        lengths: Whether it says how long files are.
        requests: `Range` of each request that came, or None.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cuts: list[int] = []
        self.failures: list[int] = []
        self.lengths = True
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: ArchiveServer = self.server
        asked = self.headers.get("Range")
        server.requests.append(asked)
        content = server.files.get(self.path.lstrip("/"))
        if server.failures:
            return self.send_error(server.failures.pop(0))
        if content is None:
            return self.send_error(404)
        start = 0
        if asked and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked).group(1))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return None
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start : start + cut])
        return None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_archives():
    """Runs a server in a thread."""
    with ArchiveServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
