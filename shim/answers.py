"""What servers, stores and clients answer, and what is concluded from it. Plain data."""

from __future__ import annotations

import re

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.certs import Certificate

ACCEPTED, REFUSED, UNREACHABLE, UNCLEAR, ABSENT = "accepts", "refuses", "cannot connect", "unclear", "absent"
UNUSABLE = "not executable"  # for this user, so it is no client of the application's
NOT_ASKED = "not asked"
NOT_TRIED = "not tried"  # since this client could not be told of such a server, or judged: no failure
_HARMLESS = (ACCEPTED, UNUSABLE, NOT_TRIED)
NOT_CONNECTED, NOT_LOADED = 0, -1  # besides OpenSSL's verify codes, which are positive


class Server(Record):
    """A server to connect to; `proxy` is `host:port` of the proxy on the way, "" for none."""

    host: str
    port: int
    proxy: str = ""
    authorization: str = ""  # for the proxy
    variable: str = "HTTPS_PROXY"  # that names the proxy

    @property
    def authority(self) -> str:
        """Host and port as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, which is verified otherwise than a name."""
        return ":" in self.host or re.fullmatch(r"[\d.]+", self.host) is not None


class Failure(Record):
    """Why a handshake of ours failed: OpenSSL's verify code (0 when it did not come to that) and its words."""

    code: int
    message: str


class Answer(Record):
    """What a client came to, and in which words."""

    state: str
    reason: str = ""


class Link(Record):
    """A certificate that the server sends."""

    subject: str
    issuer: str
    subject_id: bytes
    issuer_id: bytes
    not_before: float
    not_after: float
    sha256: str
    names: tuple[str, ...] = ()  # that it is for
    sources: tuple[str, ...] = ()  # where it says that its issuer can be fetched
    beyond_go: bool = False  # it has critical name constraints of a kind that Go does not know, and OpenSSL does


class Mounted(Record):
    """A certificate among the mounted files; `refusal` says why a store is not given it, "" when it is."""

    certificate: Certificate
    refusal: str = ""


class Store(Record):
    """A trust store; it is in force when some client of the application reads it."""

    path: str
    name: str
    content: bytes | None
    variable: str = ""  # that points to it
    in_force: bool = True
    ours: bool = False
    mounted: tuple[Mounted, ...] = ()
    install: str = ""  # what brings a CA into this one, where that is special
    unreadable: str = ""  # for the user whom clients run as


class Place(Record):
    """What of this container a remedy has to know."""

    mount: str = ""  # what to do with a CA that is missing
    install: str = ""  # what to do for one that is mounted
    unused: tuple[tuple[str, str], ...] = ()  # of mounted files: which is not used and why, and the remedy
    elsewhere: str = ""  # what is mounted where nobody looks


class Case(Record):
    """All that a diagnosis is made of."""

    server: Server
    chain: tuple[Link, ...]
    failure: Failure
    held: tuple[Certificate, ...]  # by the store
    mounted: tuple[Mounted, ...]
    now: float
    place: Place = Place()


class Finding(Record):
    """What is wrong, as one fixed word and as a sentence, and what to do."""

    kind: str
    problem: str
    remedy: str


class Verdict(Record):
    """What a store comes to; `strict` is why Python >= 3.13 refuses what all others accept."""

    store: Store
    failure: Failure | None
    strict: str
    finding: Finding | None


class Asked(Record):
    """What a client came to; `variable` is the one that points it to a bundle."""

    client: str
    variable: str
    answer: Answer


class Report(Record):
    """All about one server."""

    server: Server
    chain: tuple[Link, ...] = ()
    whole: bool = True  # the chain is all that the server sends
    verdicts: tuple[Verdict, ...] = ()
    asked: tuple[Asked, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether everybody who counts accepts the server."""
        stores = all(each.failure is None for each in self.verdicts if each.store.in_force)
        return bool(self.chain) and stores and all(each.answer.state in _HARMLESS for each in self.asked)
