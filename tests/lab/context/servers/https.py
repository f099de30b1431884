"""HTTPS servers of the lab: one port for each certificate; each answers with its port."""

import http.server
import ssl
import threading
from pathlib import Path

PKI = Path("/pki")
PORTS = {8443: "https-a", 8444: "https-b", 8445: "self-signed", 8446: "https-a-without-intermediate"}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self) -> None:
        body = f"port {self.connection.getsockname()[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


for port, name in PORTS.items():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PKI / f"{name}.pem", PKI / f"{name}.key")
    server = http.server.ThreadingHTTPServer(("", port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever).start()
