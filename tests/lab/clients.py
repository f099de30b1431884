"""FACTS: what clients of third parties say to a server of the mounted CA; the README shows the same table.

context/clients/ask.py has their command lines, and tests/container/test_clients.py asks them.
"""

from __future__ import annotations

from dataclasses import dataclass

ACCEPTS, REFUSES = "accepts", "refuses"


@dataclass(frozen=True)
class Client:
    """A client, what it reads, and its verdict in the three situations of the README's table."""

    name: str
    reads: str
    in_place: str = ACCEPTS
    certifi_in_place: str = ACCEPTS
    """The system's store is overridden."""
    by_override: str = ACCEPTS


CLIENTS = (
    Client("curl", "`CURL_CA_BUNDLE`, `SSL_CERT_FILE`, else the system's store"),
    Client("git", "`GIT_SSL_CAINFO`, else the system's store"),
    Client("rclone", "`SSL_CERT_FILE`, else the system's store"),
    Client("skopeo", "`SSL_CERT_FILE`, else the system's store"),
    Client("syft", "`SSL_CERT_FILE`, else the system's store"),
    Client("wget", "the system's store", certifi_in_place=REFUSES, by_override=REFUSES),
    Client("requests", "`REQUESTS_CA_BUNDLE`, else certifi"),
    Client("requests, `trust_env = False`", "certifi", by_override=REFUSES),
    Client("requests of the distribution", "`REQUESTS_CA_BUNDLE`, else the system's store"),
    Client("httpx", "`SSL_CERT_FILE`, else certifi"),
    Client("httpx, `trust_env=False`", "certifi", by_override=REFUSES),
    Client("aiohttp", "`SSL_CERT_FILE`, else the system's store"),
    Client("urllib3", "`SSL_CERT_FILE`, else the system's store"),
    Client("`ssl` with `cafile=certifi.where()`", "certifi", by_override=REFUSES),
    Client("botocore", "`AWS_CA_BUNDLE`, `REQUESTS_CA_BUNDLE`, else certifi"),
    Client("boto3", "`AWS_CA_BUNDLE`, `REQUESTS_CA_BUNDLE`, else certifi"),
    Client("httplib2", "`HTTPLIB2_CA_CERTS`, else certifi"),
    Client("gRPC", "`GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`, else its own"),
    Client("pip", "`PIP_CERT`, `REQUESTS_CA_BUNDLE`, else the system's store"),
    Client("pip before 24.2", "`PIP_CERT`, `REQUESTS_CA_BUNDLE`, else its own", in_place=REFUSES),
    Client("pycurl from PyPI", "the system's store", certifi_in_place=REFUSES, by_override=REFUSES),
)
