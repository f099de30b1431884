"""A proxy that intercepts TLS: it answers in the place of a package index, with a certificate of its own CA.

/lab/pki/HOST.pem and .key are what it shows for a host; /lab/packages are the files of the index.
"""

import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LAB = Path("/lab")


class Handler(BaseHTTPRequestHandler):
    """Answers CONNECT, and within it every GET."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        """Answer the handshake as the host that the client asked for."""
        pair = LAB / "pki" / self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{pair}.pem", f"{pair}.key")
        try:
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except OSError:  # the client does not trust our CA
            self.close_connection = True
            return
        self.close_connection = False  # an old pip asks by HTTP/1.0
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)

    def do_GET(self) -> None:
        """Give a file, or links to all files of a package."""
        *_, kind, name = self.path.strip("/").split("/")
        if kind == "packages":
            self._answer("application/octet-stream", (LAB / "packages" / name).read_bytes())
            return
        files = [file.name for file in (LAB / "packages").iterdir()]
        wanted = (file for file in files if file.partition("-")[0].lower().replace("_", "-") == name)
        self._answer("text/html", "".join(f'<a href="/packages/{file}">{file}</a>\n' for file in wanted).encode())

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", 3128), Handler).serve_forever()
