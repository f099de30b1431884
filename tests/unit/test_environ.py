"""Which variables the application gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shim import bundle, environ, families
from tests.certificates import pems, root
from tests.unit.machines import CERTIFI, RHEL, RUN, SHIPPED, certifi, machine, setting

if TYPE_CHECKING:
    from shim.snapshot import Directory, Setting, Snapshot

A, B = root("A"), root("B")
WANTED = frozenset({A.sha256})
OVERRIDABLE = [row for row in families.VARIABLES if row.exported]


def needs(
    *overridden: str, wanted: frozenset[str] = WANTED, settings: tuple[Setting, ...] = (), curl: bool = False
) -> environ.Needs:
    return environ.needs(machine(RHEL, certifi(), settings=settings, curl=curl), frozenset(overridden), wanted)


@pytest.mark.parametrize(
    ("overridden", "curl", "names"),
    [
        pytest.param([], False, {"NODE_EXTRA_CA_CERTS"}, id="all in place"),
        pytest.param(
            [RHEL.path],
            False,
            {"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"},
            id="system overridden, which the requests of a distribution reads",
        ),
        pytest.param([CERTIFI], False, {"NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"}, id="certifi overridden"),
        pytest.param(
            [RHEL.path],
            True,
            {"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"},
            id="system overridden and curl deaf to SSL_CERT_FILE",
        ),
        pytest.param([], True, {"NODE_EXTRA_CA_CERTS"}, id="curl deaf, and nothing overridden"),
    ],
)
def test_the_situation_decides_the_variables(overridden: list[str], curl: bool, names: set[str]) -> None:  # noqa: FBT001 - a column of the table
    assert set(needs(*overridden, curl=curl).variables) == names


@pytest.mark.parametrize(
    ("overridden", "names"),
    [
        pytest.param([], {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}, id="all in place"),
        pytest.param(
            [RHEL.path],
            {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "GIT_SSL_CAINFO", "HTTPLIB2_CA_CERTS"},
            id="system overridden",
        ),
        pytest.param([CERTIFI], {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "HTTPLIB2_CA_CERTS"}, id="certifi overridden"),
    ],
)
def test_a_client_that_is_here_adds_its_variable(overridden: list[str], names: set[str]) -> None:
    clients = tuple(row.needs for row in families.VARIABLES if row.needs)
    with_all = machine(RHEL, certifi())._replace(clients=clients)
    found = environ.needs(with_all, frozenset(overridden), WANTED).variables

    assert set(found) - set(needs(*overridden).variables) == names


def test_without_a_wanted_ca_no_variable_is_set() -> None:
    assert needs(wanted=frozenset()).variables == {}


def test_a_ca_to_be_hidden_from_a_store_needs_its_variable_without_any_wanted_ca() -> None:
    assert set(needs(RHEL.path, wanted=frozenset()).variables) == {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}


@pytest.mark.parametrize("row", families.VARIABLES, ids=lambda row: row.name)
def test_a_variable_that_somebody_set_is_merged_and_repointed(row: families.Variable) -> None:
    found = needs(settings=(setting(row.name, "/corp.pem", B.pem),))

    assert found.variables[row.name] == row.file
    assert (row.file, row.base, row.name) in found.files


@pytest.mark.parametrize("row", families.VARIABLES, ids=lambda row: row.name)
def test_a_variable_that_points_to_nothing_is_repointed(row: families.Variable) -> None:
    found = needs(settings=(setting(row.name, "/gone.pem", None),))

    assert found.variables[row.name] == row.file
    assert (row.file, row.base, row.name) in found.files


@pytest.mark.parametrize("row", families.VARIABLES, ids=lambda row: row.name)
def test_a_bundle_that_holds_all_already_is_left_as_it_is(row: families.Variable) -> None:
    assert row.name not in needs(settings=(setting(row.name, "/corp.pem", pems(A, B)),)).variables


@pytest.mark.parametrize("path", [RHEL.path, CERTIFI], ids=["system", "certifi"])
def test_a_variable_that_points_to_a_store_in_place_is_left_as_it_is(path: str) -> None:
    assert "PIP_CERT" not in needs(settings=(setting("PIP_CERT", path, SHIPPED),)).variables


@pytest.mark.parametrize("path", [RHEL.path, CERTIFI], ids=["system", "certifi"])
def test_a_variable_that_points_to_an_overridden_store_is_repointed(path: str) -> None:
    assert needs(path, settings=(setting("PIP_CERT", path, SHIPPED),)).variables["PIP_CERT"] == "pip.pem"


def test_a_link_to_a_store_is_that_store() -> None:
    assert "PIP_CERT" not in needs(settings=(setting("PIP_CERT", "/link", SHIPPED, real=RHEL.path),)).variables


def test_without_a_wanted_ca_a_variable_of_somebody_else_s_is_left_as_it_is() -> None:
    chosen = tuple(setting(row.name, "/corp.pem", B.pem) for row in families.VARIABLES)

    assert needs(wanted=frozenset(), settings=chosen).variables == {}


def test_a_chosen_bundle_and_one_that_nobody_chose_get_files_of_their_own() -> None:
    found = needs(RHEL.path, curl=True, settings=(setting("CURL_CA_BUNDLE", "/corp.pem", B.pem),))

    assert (found.variables["CURL_CA_BUNDLE"], found.variables["SSL_CERT_FILE"]) == ("curl.pem", "os.pem")


def test_curl_never_gets_a_bundle_of_its_own_merged_from_a_file_that_openssl_was_given() -> None:
    found = needs(RHEL.path, curl=True, settings=(setting("SSL_CERT_FILE", "/corp.pem", B.pem),))

    assert set(found.files) >= {("os.pem", "os", "SSL_CERT_FILE")}


def test_no_two_files_of_the_same_name_are_asked_for() -> None:
    chosen = tuple(setting(row.name, f"/{row.name}.pem", B.pem) for row in families.VARIABLES)
    names = [name for name, _, _ in needs(RHEL.path, CERTIFI, settings=chosen, curl=True).files]

    assert len(names) == len(set(names)) == len(families.VARIABLES)


def _beside(origin: str) -> Snapshot:
    return machine(directories=(_ours(origin),))


def _ours(origin: str) -> Directory:
    return RUN._replace(files=(("pip.pem", bundle.merged(origin, (), (A.item,))),))


@pytest.mark.parametrize(
    ("value", "restored"),
    [
        pytest.param("/run/ca-shim/pip.pem", {"PIP_CERT": "/corp.pem"}, id="made from a file"),
        pytest.param("/run/ca-shim/gone.pem", {"PIP_CERT": None}, id="a file of ours that is gone"),
        pytest.param("/corp.pem", {}, id="never ours"),
    ],
)
def test_a_variable_of_ours_that_is_needed_no_more_is_as_it_was_before_us(
    value: str, restored: dict[str, str | None]
) -> None:
    assert environ.restored({"PIP_CERT": value}, _beside("/corp.pem"), {}) == restored


def test_a_variable_of_ours_made_from_a_store_is_unset_when_it_is_needed_no_more() -> None:
    assert environ.restored({"PIP_CERT": "/run/ca-shim/pip.pem"}, _beside(""), {}) == {"PIP_CERT": None}


def test_the_vendors_override_is_unset_when_the_store_serves_and_replaced_when_it_does_not() -> None:
    vendors = setting("REQUESTS_CA_BUNDLE", f"{families.VENDOR_OVERRIDES}/python/cacert.pem", None)
    seen = machine(RHEL, certifi(), settings=(vendors._replace(superseded=True),))
    before = {"REQUESTS_CA_BUNDLE": vendors.origin}

    assert "REQUESTS_CA_BUNDLE" not in environ.needs(seen, frozenset(), WANTED).variables
    assert environ.restored(before, seen, {}) == {"REQUESTS_CA_BUNDLE": None}
    assert environ.needs(seen, frozenset({CERTIFI}), WANTED).variables["REQUESTS_CA_BUNDLE"] == "python.pem"


def test_a_variable_that_is_still_needed_is_not_restored() -> None:
    assert environ.restored({"PIP_CERT": "/run/ca-shim/pip.pem"}, _beside("/corp.pem"), {"PIP_CERT": "x"}) == {}
