"""One origin for viewer and PACS: OHIF's files, and everything under /dicom-web and /wado handed on to Orthanc."""

import http.client
import mimetypes
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

HANDED_ON = ("/dicom-web", "/wado")
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".css": "text/css"}


class ViewerServer:
    """Serves `site` on a free port of the loopback; paths that are no file give index.html, as single-page sites need."""

    def __init__(self, site: Path, orthanc_port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site, orthanc_port))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="viewer server", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(site: Path, orthanc_port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith(HANDED_ON):
                self._hand_on("GET")
                return
            file = (site / path.lstrip("/")).resolve()
            if not file.is_relative_to(site.resolve()) or not file.is_file():
                file = site / "index.html"
            kind = TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._answer(200, kind, file.read_bytes())

        def do_POST(self) -> None:
            self._hand_on("POST")

        def _hand_on(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            wanted = {name: self.headers[name] for name in ("Accept", "Content-Type") if self.headers.get(name)}
            # Orthanc writes the addresses of bulk data by the Host that it is called by.
            wanted["Host"] = self.headers["Host"]
            connection = http.client.HTTPConnection("127.0.0.1", orthanc_port, timeout=60)
            try:
                connection.request(method, self.path, body, wanted)
                answer = connection.getresponse()
                self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
            finally:
                connection.close()

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(content))),
                # SharedArrayBuffer, in which OHIF keeps volumes, needs an isolated page.
                ("Cross-Origin-Opener-Policy", "same-origin"),
                ("Cross-Origin-Embedder-Policy", "require-corp"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
