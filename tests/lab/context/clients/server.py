"""The servers of clients.py, by CA A and by CA B: HTTPS with what each client looks for, and gRPC."""

import http.server
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc  # type: ignore[import-untyped] # only the image has it

PKI = Path("/pki")
PORTS = {8443: "https-a", 8444: "https-b"}
GRPC_PORTS = {9443: "https-a", 9444: "https-b"}
PAGES = {
    "/git/info/refs": f"{'1' * 40}\trefs/heads/main\n",
    "/git/HEAD": "ref: refs/heads/main\n",
    "/simple/lab/": '<a href="lab-1.0-py3-none-any.whl">lab-1.0-py3-none-any.whl</a>\n',
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET and HEAD."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self._page())))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self._page())

    def _page(self) -> bytes:
        return PAGES.get(self.path.partition("?")[0], "well\n").encode()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve_https(port: int, name: str) -> None:
    """Answer until the process ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PKI / f"{name}.pem", PKI / f"{name}.key")
    server = http.server.ThreadingHTTPServer(("", port), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever).start()


def serve_grpc(port: int, name: str) -> grpc.Server:
    """Echo what the method /lab/echo is told."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    credentials = grpc.ssl_server_credentials(
        [((PKI / f"{name}.key").read_bytes(), (PKI / f"{name}.pem").read_bytes())]
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lab", {"echo": handler}),))
    server.add_secure_port(f"[::]:{port}", credentials)
    server.start()
    return server


for each, signed in PORTS.items():
    serve_https(each, signed)
servers = [serve_grpc(each, signed) for each, signed in GRPC_PORTS.items()]
sys.stdout.write("serving\n")
sys.stdout.flush()
servers[0].wait_for_termination()
