"""Why a store or a client refuses a server, and what to do about it. Pure."""

from __future__ import annotations

from cryptography import x509

from shim import families
from shim.answers import ACCEPTED, NOT_ASKED, NOT_CONNECTED, NOT_LOADED, NOT_TRIED, REFUSED, UNUSABLE, Finding
from shim.certs import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shim.answers import Asked, Case, Link, Mounted, Verdict
    from shim.certs import Certificate

MEND = f"restore the file from its package, or unset the variable; then run `{families.COMMAND} install`"
MAKE_READABLE = "make it readable (chmod 644), and the directories above it (chmod 755)"
_SESSION = f'in this session, run eval "$({families.COMMAND} env)"'
_REISSUE = "have the certificate reissued"
_MOUNT_THAT = "mount that CA"
_MOST = 3  # files that a sentence names


def diagnose(case: Case) -> Finding:
    """Return why a store refuses the server, and what to do. Pure."""
    if case.failure.code == NOT_LOADED:
        return Finding("store-unusable", f"a store does not load: {case.failure.message}", MEND)
    rule = _RULES.get(case.failure.code)
    if rule is None:
        return Finding("refused", f"OpenSSL refuses the chain: {case.failure.message}", _REISSUE)
    return rule(case)


def _missing_issuer(case: Case) -> Finding:
    path = _path(case.chain)
    issuers = {link.issuer_id for link in path}
    held = {each.sha256 for each in case.held}
    mounted = [each for each in case.mounted if each.certificate.subject_id in issuers]
    if new := [each for each in mounted if not each.refusal and each.certificate.sha256 not in held]:
        return Finding("not-installed", f"{_mounted(new[0])}, but not yet in this store", case.place.install)
    if mounted and all(each.refusal for each in mounted):
        problem = f"{_mounted(mounted[0])}, but {mounted[0].refusal}"
        return Finding("mounted-and-refused", problem, "have it reissued, or mount its successor")
    in_store = [each for each in case.held if each.subject_id == path[-1].issuer_id]
    if in_store and not any("issued-by-another" in each.traits for each in in_store):
        problem = f"a CA named {path[-1].issuer} is trusted, but did not sign what the server sends: it has another key"
        return Finding("other-key", problem, f"get the present one from whoever runs the CA, {case.place.mount}")
    return _with_what_is_not_used(case, _incomplete(case, path, in_store))


def _with_what_is_not_used(case: Case, finding: Finding) -> Finding:
    """Name the mounted files that are not used: the CA may be in one of them. Else say that there are none."""
    if case.place.unused:
        whats, remedies = zip(*case.place.unused, strict=True)
        kind = finding.kind if case.mounted else "mounted-and-refused"
        problem = f"{finding.problem}; of the mounted files {', '.join(whats[:_MOST])} cannot be used"
        return Finding(kind, problem, f"if it is in there, {remedies[0]}; or else {finding.remedy}")
    nothing = "" if case.mounted else f", and no CA is mounted at all{case.place.elsewhere}"
    return finding._replace(problem=finding.problem + nothing)


def _mounted(each: Mounted) -> str:
    return f"the CA {each.certificate.subject} is mounted ({each.certificate.file})"


def _incomplete(case: Case, path: tuple[Link, ...], in_store: Sequence[Certificate]) -> Finding:
    sent = {link.subject_id for link in path[1:]}
    known = [*case.held, *(each.certificate for each in case.mounted)]
    alone = [*in_store, *(each for each in known if each.subject_id in sent and "issued-by-another" in each.traits)]
    name = path[-1].issuer  # its own, when it is a root
    if alone:
        problem = f"the CA {alone[0].subject} is only an intermediate, and its root is not trusted"
        root = _issuer_above(alone[0], known) if in_store else name
        return Finding("only-intermediate", problem, f"get its root, {root}, {case.place.mount}")
    if leaf := next((each for each in case.mounted if each.certificate.sha256 == path[0].sha256), None):
        problem = f"what is mounted ({leaf.certificate.file}) is the server's own certificate, which is no CA"
        return Finding("leaf-mounted", problem, f"get the CA that issued it, {name}, {case.place.mount}")
    if len(path) == 1 and len(case.chain) == 1:
        fetch = f" (it says that its issuer can be fetched from {path[0].sources[0]})" if path[0].sources else ""
        problem = f"the server sends its own certificate alone, and the issuer {name} is not trusted here{fetch}"
        remedy = (
            "if that is an intermediate, have the server send it (its full chain), or mount it beside its root; "
            f"if it is a root, {case.place.mount}"
        )
        return Finding("intermediate-not-sent" if case.mounted else "issuer-unknown", problem, remedy)
    if len(path) == 1:
        problem = f"none of what the server sends is {name}, which issued the server's certificate"
        remedy = "have the server send the right chain, or mount the intermediate beside its root"
        return Finding("intermediate-not-sent", problem, remedy)
    return Finding("root-not-mounted", f"the root {name} is not trusted here", f"get it, {case.place.mount}")


def _issuer_above(certificate: Certificate, known: Sequence[Certificate]) -> str:
    """Return the name of the first issuer above that is not there."""
    by_name = {each.subject_id: each for each in known}
    seen = {certificate.sha256}
    while (above := by_name.get(certificate.issuer_id)) and above.sha256 not in seen:
        certificate = above
        seen.add(above.sha256)
    return x509.load_pem_x509_certificate(certificate.pem).issuer.rfc4514_string()


def _path(chain: tuple[Link, ...]) -> tuple[Link, ...]:
    """Return the server's certificate and its issuers as far as they are sent, whatever the order."""
    path = [chain[0]]
    rest = list(chain[1:])
    while above := next((each for each in rest if each.subject_id == path[-1].issuer_id), None):
        path.append(above)
        rest.remove(above)
    return tuple(path)


def _self_signed(case: Case) -> Finding:
    leaf = case.chain[0]
    problem = f"the server has a certificate signed by itself, {leaf.subject}"
    remedy = f"give the server a certificate of your CA; or trust this one: {case.place.mount}"
    mounted = next((each for each in case.mounted if each.certificate.sha256 == leaf.sha256), None)
    if mounted and mounted.refusal:
        problem = f"{problem}, which is mounted, but {mounted.refusal}"
        return Finding("mounted-and-refused", problem, f"give the server a certificate of your CA, and {_MOUNT_THAT}")
    if mounted:
        return Finding("not-installed", f"{problem}, which is mounted but not in this store", case.place.install)
    return _with_what_is_not_used(case, Finding("self-signed", problem, remedy))


def _wrong_name(case: Case) -> Finding:
    names = ", ".join(case.chain[0].names[:10]) or "no name at all"
    problem = f"the server's certificate is not for {case.server.host}, but for {names}"
    return Finding("name-mismatch", problem, "use one of these names, or have it reissued with this one")


def _expired(case: Case) -> Finding:
    path = _path(case.chain)
    issuers = {link.issuer_id for link in path}
    old = [each for each in case.held if each.subject_id in issuers and each.not_after < case.now]
    for number, link in enumerate(path):
        if link.not_after < case.now and link.subject_id not in {each.subject_id for each in old}:
            what = "the server's certificate" if number == 0 else "a CA that the server sends,"
            problem = f"{what} {link.subject} expired at {timestamp(link.not_after)}{_here(case)}"
            return Finding("expired", problem, "renew it on the server; or correct this machine's clock")
    problem = f"the trusted CA {old[0].subject if old else path[-1].issuer} has expired{_here(case)}"
    return Finding("expired", problem, f"get its successor, {case.place.mount}")


def _not_yet_valid(case: Case) -> Finding:
    path = _path(case.chain)
    issuers = {link.issuer_id for link in path}
    late: list[Link | Certificate] = [each for each in path if each.not_before > case.now]
    late += [each for each in case.held if each.subject_id in issuers and each.not_before > case.now]
    found = late[0] if late else path[0]
    problem = f"{found.subject} is not valid before {timestamp(found.not_before)}{_here(case)}"
    return Finding("not-yet-valid", problem, "check this machine's clock, or wait")


def _of_dates(case: Case) -> Iterator[Finding]:
    path = _path(case.chain)
    if any(link.not_after < case.now for link in path):
        yield _expired(case)
    if any(link.not_before > case.now for link in path):
        yield _not_yet_valid(case)


def _here(case: Case) -> str:
    return f" (here it is {timestamp(case.now)})"


def _weak(case: Case) -> Finding:
    problem = f"the chain has a key or a signature that OpenSSL 3 takes for too weak ({case.failure.message})"
    return Finding("weak", problem, "have the certificate reissued: RSA of 2048 bits or more, SHA-256 or newer")


# By OpenSSL's verify codes, x509_vfy.h.
_RULES = {
    2: _missing_issuer, 19: _missing_issuer, 20: _missing_issuer, 21: _missing_issuer, 7: _missing_issuer,
    9: _not_yet_valid, 10: _expired, 18: _self_signed, 62: _wrong_name, 64: _wrong_name,
    66: _weak, 67: _weak, 68: _weak,
}  # fmt: skip


def conclude(
    case: Case, verdicts: tuple[Verdict, ...], asked: tuple[Asked, ...], lacking: tuple[str, ...]
) -> Iterator[Finding]:
    """Return what follows from all answers together: each cause once, and the variables that hide a store."""
    of_stores = list(_of_stores(verdicts))
    yield from of_stores
    if any(each.kind == "name-mismatch" for each in of_stores):  # OpenSSL ends at the name, and does not see the dates
        yield from _of_dates(case)
    if not of_stores:
        yield from _of_clients(case, asked)
    if unusable := [each for each in asked if each.answer.state == UNUSABLE]:
        problem = f"{_named(unusable)} cannot be asked: {unusable[0].answer.reason}"
        yield Finding("client-unusable", problem, "nothing is to be done, unless the application uses it")
    for each in (each for each in verdicts if each.store.variable and not each.store.in_force and each.failure):
        problem = f"{each.store.name}, {each.store.path}, hides the stores in this session; the application has another"
        yield Finding("session", problem, _SESSION)
    if lacking:
        yield Finding("session", f"this session lacks the application's {', '.join(lacking)}", _SESSION)


def _of_stores(verdicts: tuple[Verdict, ...]) -> Iterator[Finding]:
    accepted = (each.store for each in verdicts if each.failure is None and not each.store.variable)
    accepting = [store.path for store in sorted(accepted, key=lambda store: not store.in_force)]  # the hidden ones last
    for each in (each for each in verdicts if each.store.in_force):
        refuses = each.failure and each.failure.code != NOT_CONNECTED
        if refuses and each.store.variable and not each.store.ours and accepting:
            variable, path = each.store.variable, each.store.path
            problem = f"{variable} points to {path}, which hides {accepting[-1]}, where the server is accepted"
            remedy = f"unset {variable}; or start the application through ca-shim, which merges the two"
            yield Finding("variable-hides-stores", problem, remedy)
        elif each.finding:
            yield each.finding


def _of_clients(case: Case, asked: tuple[Asked, ...]) -> Iterator[Finding]:
    """Return why clients refuse although every store accepts."""
    refused = [each for each in asked if each.answer.state == REFUSED]
    if refused and not case.chain[0].names:
        problem = f"the server's certificate has no subjectAltName, without which {_named(refused)} refuse it"
        yield Finding("no-alternative-name", problem, f"have it reissued with {case.server.host} as one")
        refused = []
    for each in refused:
        problem = f"{each.client} refuses although every store accepts: {each.answer.reason}"
        yield Finding("client-refuses", problem, "it reads another store, or verifies more strictly: see its words")
    failed = [each for each in asked if each.answer.state not in (ACCEPTED, REFUSED, UNUSABLE, NOT_TRIED)]
    for answer in dict.fromkeys(each.answer for each in failed):
        names = _named([each for each in failed if each.answer == answer])
        remedy = "ask again" if answer.state == NOT_ASKED else "see its words; privileges are the usual cause"
        yield Finding("client-failed", f"{names} could not be asked: {answer.reason}", remedy)


def _named(asked: Sequence[Asked]) -> str:
    return ", ".join(each.client for each in asked)
