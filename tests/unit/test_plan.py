"""What is planned for each store."""

from __future__ import annotations

import pytest

from shim import bundle, families, plan
from shim.snapshot import Directory, OsStore, Snapshot
from tests.certificates import Issued, intermediate, issue, pems, root
from tests.unit.machines import CERTIFI, DEBIAN, READ_ONLY, RHEL, RUN, SHIPPED, certifi, machine, setting

A, B = root("A"), root("B")
NOT_CA = issue("Not a CA", ca=False)
FAMILIES = [pytest.param(RHEL, id="rhel"), pytest.param(DEBIAN, id="debian")]


def anchors(store: OsStore, *issued: Issued) -> tuple[tuple[str, bytes], ...]:
    family = store.family or families.RHEL
    return tuple(sorted((f"{family.anchors}/ca-shim-{i.parsed.slug}-{i.sha256[:12]}.crt", i.pem) for i in issued))


def plan_os(store: OsStore, *wanted: Issued, failed: str = "") -> plan.StorePlan:
    return plan.plan_os(tuple(each.parsed for each in wanted), store, failed)


def actions(store_plan: plan.StorePlan) -> list[str]:
    return [step.action for step in store_plan.steps]


@pytest.mark.parametrize("store", FAMILIES)
def test_a_first_ca_is_framed_by_the_marker_and_ends_with_a_refresh(store: OsStore) -> None:
    assert actions(plan_os(store, A)) == ["write", "mkdir", "write", "refresh"]


@pytest.mark.parametrize("store", FAMILIES)
def test_an_anchor_is_one_certificate_under_its_own_name(store: OsStore) -> None:
    step = plan_os(store, A).steps[2]

    assert ((step.path, step.content),) == anchors(store, A)


@pytest.mark.parametrize("store", FAMILIES)
def test_the_marker_names_every_certificate_that_the_change_is_about(store: OsStore) -> None:
    before = store._replace(content=SHIPPED + B.pem, anchors=anchors(store, B))

    assert plan.touched_by(plan_os(before, A).steps[0].content) == {A.sha256, B.sha256}


@pytest.mark.parametrize("store", FAMILIES)
def test_a_store_that_holds_what_is_wanted_needs_nothing(store: OsStore) -> None:
    done = store._replace(content=SHIPPED + A.pem, anchors=anchors(store, A))

    assert plan_os(done, A) == plan.StorePlan(store.path)


@pytest.mark.parametrize("store", FAMILIES)
def test_a_marker_left_in_a_store_that_is_as_wanted_is_tidied_away(store: OsStore) -> None:
    done = store._replace(content=SHIPPED + A.pem, anchors=anchors(store, A), state=plan.settled(b"", SHIPPED + A.pem))

    assert [(step.action, step.path) for step in plan_os(done, A).steps] == [("remove", done.family.state)]  # type: ignore[union-attr]


@pytest.mark.parametrize("store", FAMILIES)
def test_a_start_that_was_killed_before_the_refresh_refreshes_again(store: OsStore) -> None:
    killed = store._replace(
        content=SHIPPED + A.pem, anchors=anchors(store, A), state=b"pending -\n" + A.sha256.encode() + b"\n"
    )

    assert actions(plan_os(killed, A))[-1] == "refresh"


@pytest.mark.parametrize(
    ("store", "arguments"),
    [pytest.param(RHEL, (), id="rhel: bare"), pytest.param(DEBIAN, ("--fresh",), id="debian: --fresh")],
)
def test_after_a_removal_the_tool_gets_its_arguments_for_that(store: OsStore, arguments: tuple[str, ...]) -> None:
    before = store._replace(content=SHIPPED + A.pem, anchors=anchors(store, A))

    assert plan_os(before).steps[-1].arguments == arguments


@pytest.mark.parametrize("store", FAMILIES)
def test_an_addition_needs_no_arguments(store: OsStore) -> None:
    assert plan_os(store, A).steps[-1].arguments == ()


@pytest.mark.parametrize("store", FAMILIES)
def test_a_withdrawn_ca_loses_its_anchor(store: OsStore) -> None:
    before = store._replace(content=SHIPPED + pems(A, B), anchors=anchors(store, A, B))
    removed = [step.path for step in plan_os(before, B).steps if step.action == "remove"]

    assert removed == [path for path, _ in anchors(store, A)]


def test_a_ca_that_the_base_holds_gets_no_anchor() -> None:
    assert plan_os(RHEL, root("Shipped 1")).steps == ()


def test_an_anchor_with_other_bytes_is_written_again() -> None:
    before = RHEL._replace(content=SHIPPED + A.pem, anchors=((anchors(RHEL, A)[0][0], A.pem + b"\n"),))

    assert [step.content for step in plan_os(before, A).steps if step.path.endswith(".crt")] == [A.pem]


@pytest.mark.parametrize(
    ("issued", "kept"),
    [
        pytest.param(NOT_CA, False, id="CA:FALSE"),
        pytest.param(issue("x", ca=None), False, id="no basicConstraints"),
        pytest.param(issue("x", critical=False), True, id="basicConstraints not critical"),
        pytest.param(intermediate(), True, id="intermediate"),
    ],
)
def test_what_p11_kit_drops_is_not_wanted_in_the_rhel_family(issued: Issued, kept: bool) -> None:  # noqa: FBT001 - a column of the table
    assert bool(plan.wanted_in((issued.parsed,), RHEL)) is kept


def test_what_p11_kit_drops_is_wanted_in_the_debian_family() -> None:
    assert plan.wanted_in((NOT_CA.parsed,), DEBIAN) == (NOT_CA.parsed,)


def test_what_the_administrator_distrusts_is_not_wanted() -> None:
    assert plan.wanted_in((A.parsed, B.parsed), RHEL._replace(blocklist=(A.pem,))) == (B.parsed,)


def test_a_system_without_a_row_wants_everything() -> None:
    assert plan.wanted_in((NOT_CA.parsed,), RHEL._replace(family=None)) == (NOT_CA.parsed,)


@pytest.mark.parametrize(
    ("store", "failed", "reason"),
    [
        pytest.param(RHEL._replace(blocked=READ_ONLY), "", READ_ONLY, id="blocked"),
        pytest.param(RHEL._replace(family=None, blocked="no row"), "", "no row", id="no row"),
        pytest.param(RHEL, "disk full", "disk full", id="failed"),
        pytest.param(RHEL._replace(blocked=READ_ONLY), "disk full", "disk full", id="failed before blocked"),
    ],
)
def test_a_store_that_cannot_be_changed_is_overridden_and_says_why(store: OsStore, failed: str, reason: str) -> None:
    assert plan_os(store, A, failed=failed) == plan.StorePlan(store.path, override=reason, added=frozenset({A.sha256}))


def test_a_blocked_store_that_needs_no_change_is_not_overridden() -> None:
    assert plan_os(RHEL._replace(blocked=READ_ONLY), root("Shipped 1")).override == ""


def test_a_withdrawn_ca_in_a_blocked_store_asks_for_an_override() -> None:
    baked = RHEL._replace(content=SHIPPED + A.pem, anchors=anchors(RHEL, A), blocked=READ_ONLY)

    assert plan_os(baked) == plan.StorePlan(RHEL.path, override=READ_ONLY, removed=frozenset({A.sha256}))


@pytest.mark.parametrize("store", FAMILIES)
def test_a_refresh_in_vain_is_not_repeated_for_the_same_bundle(store: OsStore) -> None:
    settled = store._replace(anchors=anchors(store, A), state=plan.settled(b"", SHIPPED))

    assert (plan_os(settled, A).steps, bool(plan_os(settled, A).override)) == ((), True)


@pytest.mark.parametrize("store", FAMILIES)
def test_a_refresh_in_vain_is_repeated_when_the_bundle_is_another(store: OsStore) -> None:
    settled = store._replace(anchors=anchors(store, A), state=plan.settled(b"", b"an older one"))

    assert actions(plan_os(settled, A))[-1] == "refresh"


@pytest.mark.parametrize("store", FAMILIES)
def test_a_refresh_in_vain_is_repeated_when_another_ca_is_mounted(store: OsStore) -> None:
    settled = store._replace(anchors=anchors(store, A), state=plan.settled(b"", SHIPPED))

    assert actions(plan_os(settled, A, B))[-1] == "refresh"


@pytest.mark.parametrize("store", FAMILIES)
@pytest.mark.parametrize("why", ["", "its tool failed: it is broken"])
def test_a_refresh_in_vain_is_repeated_when_the_tool_is_another(store: OsStore, why: str) -> None:
    settled = store._replace(anchors=anchors(store, A), state=plan.settled(b"", SHIPPED, b"old", why), tool=b"new")

    assert actions(plan_os(settled, A))[-1] == "refresh"


def test_a_refresh_after_one_that_failed_or_was_killed_takes_nothing_for_done() -> None:
    killed = DEBIAN._replace(anchors=anchors(DEBIAN, A), state=b"pending -\n")

    assert plan_os(killed, A).steps[-1].arguments == DEBIAN.family.after_removal  # type: ignore[union-attr]
    assert plan_os(DEBIAN, A).steps[-1].arguments == ()


def test_a_store_whose_tool_failed_at_something_else_than_its_bundle_is_overridden() -> None:
    content = SHIPPED + A.pem
    why = "its tool failed: it left 1 certificates out of /etc/ssl/certs"
    done = DEBIAN._replace(content=content, anchors=anchors(DEBIAN, A), state=plan.settled(b"", content, b"", why))

    assert plan_os(done, A) == plan.StorePlan(DEBIAN.path, override=why)


def test_why_a_refresh_failed_is_no_fingerprint() -> None:
    state = plan.settled(b"pending -\nabc\n", b"", b"", f"{A.sha256}\n{B.sha256}")

    assert plan.touched_by(state) == {"abc"}


@pytest.mark.parametrize("state", [b"", b"\xff\xfe", b"pending", b"settled x y z", b"\n" * 9])
def test_a_marker_with_odd_content_raises_nothing(state: bytes) -> None:
    assert actions(plan_os(RHEL._replace(state=state), A))[-1] == "refresh"


def test_a_leftover_of_a_killed_write_of_an_anchor_is_removed() -> None:
    leftover = f"{families.RHEL.anchors}/ca-shim-a-123.crt.ca-shim-new-0"
    before = RHEL._replace(content=SHIPPED + A.pem, anchors=(*anchors(RHEL, A), (leftover, b"half")))

    assert leftover in [step.path for step in plan_os(before, A).steps if step.action == "remove"]


def test_certifi_gets_our_block_at_its_end() -> None:
    (step,) = plan.plan_certifi((A.parsed,), certifi(), "").steps

    assert (step.path, bundle.split(step.content)[0]) == (CERTIFI, SHIPPED)


def test_openssl_must_find_every_certificate_of_the_new_certifi() -> None:
    assert plan.plan_certifi((A.parsed, B.parsed), certifi(), "").steps[0].pem == 4


def test_certifi_with_our_block_needs_nothing() -> None:
    content = plan.plan_certifi((A.parsed,), certifi(), "").steps[0].content

    assert plan.plan_certifi((A.parsed,), certifi(content=content), "").steps == ()


def test_the_block_is_the_same_in_whatever_order_the_cas_are_mounted() -> None:
    one, other = (plan.plan_certifi(w, certifi(), "") for w in ((A.parsed, B.parsed), (B.parsed, A.parsed)))

    assert one == other


def test_a_ca_that_certifi_ships_is_not_put_into_the_block() -> None:
    assert plan.plan_certifi((root("Shipped 1").parsed,), certifi(), "").steps == ()


def test_without_any_ca_certifi_is_the_shipped_file_again() -> None:
    content = plan.plan_certifi((A.parsed,), certifi(), "").steps[0].content

    assert plan.plan_certifi((), certifi(content=content), "").steps[0].content == SHIPPED


def test_an_upgraded_certifi_that_now_ships_our_ca_loses_the_block() -> None:
    content = bundle.join(SHIPPED + A.pem, (A.item,))

    assert plan.plan_certifi((A.parsed,), certifi(content=content), "").steps[0].content == SHIPPED + A.pem


def test_a_block_written_differently_is_written_anew() -> None:
    content = bundle.join(SHIPPED, (A.item,))
    (step,) = plan.plan_certifi((A.parsed,), certifi(content=content), "").steps

    assert step.reason == "written differently"


def test_damaged_marks_leave_certifi_alone() -> None:
    store = certifi(content=SHIPPED + b"# BEGIN ca-shim\n", blocked="damaged")

    assert plan.plan_certifi((A.parsed,), store, "") == plan.StorePlan(CERTIFI, override="damaged")


@pytest.mark.parametrize(
    ("blocked", "failed", "override"),
    [
        pytest.param(READ_ONLY, "", READ_ONLY, id="blocked"),
        pytest.param("", "no space left", "no space left", id="failed"),
    ],
)
def test_certifi_that_cannot_be_changed_is_overridden(blocked: str, failed: str, override: str) -> None:
    made = plan.plan_certifi((A.parsed,), certifi(blocked=blocked), failed)

    assert (made.override, made.steps) == (override, ())


def test_a_temporary_file_beside_certifi_is_removed() -> None:
    (step,) = plan.plan_certifi((), certifi(leftover=CERTIFI + ".ca-shim-new-0"), "").steps

    assert (step.action, step.path) == ("remove", CERTIFI + ".ca-shim-new-0")


BLOCKED = machine(RHEL._replace(blocked=READ_ONLY), certifi(blocked=READ_ONLY))


def make(snapshot: Snapshot, *wanted: Issued, failed: dict[str, str] | None = None) -> plan.Plan:
    return plan.make(tuple(each.parsed for each in wanted), snapshot, failed or {})


def files(made: plan.Plan) -> dict[str, bytes]:
    return {step.path: step.content for step in made.override if step.action == "write"}


def test_a_machine_without_anything_of_ours_and_without_cas_has_an_empty_plan() -> None:
    made = make(machine(RHEL, certifi()))

    assert (made.steps, made.variables, made.directory) == ((), {}, "")


def test_a_machine_in_place_gets_the_variable_of_node_alone() -> None:
    assert make(machine(RHEL, certifi()), A).variables == {"NODE_EXTRA_CA_CERTS": "/run/ca-shim/extra.pem"}


def test_a_machine_out_of_reach_gets_a_bundle_for_every_store() -> None:
    assert make(BLOCKED, A).variables == {
        "SSL_CERT_FILE": "/run/ca-shim/os.pem",
        "REQUESTS_CA_BUNDLE": "/run/ca-shim/python.pem",
        "NODE_EXTRA_CA_CERTS": "/run/ca-shim/extra.pem",
    }


@pytest.mark.parametrize("name", ["os.pem", "python.pem"])
def test_an_override_bundle_holds_the_store_and_the_cas(name: str) -> None:
    content = files(make(BLOCKED, A))[f"/run/ca-shim/{name}"]

    assert bundle.fingerprints(content) == bundle.fingerprints(SHIPPED + A.pem)


def test_the_bundle_of_node_holds_the_cas_alone() -> None:
    assert bundle.fingerprints(files(make(BLOCKED, A))["/run/ca-shim/extra.pem"]) == {A.sha256}


def test_a_ca_baked_in_place_and_withdrawn_is_in_no_override_bundle() -> None:
    baked = machine(
        RHEL._replace(content=SHIPPED + A.pem, anchors=anchors(RHEL, A), blocked=READ_ONLY),
        certifi(content=bundle.join(SHIPPED, (A.item,)), blocked=READ_ONLY),
    )
    made = files(make(baked, B))

    assert A.sha256 not in bundle.fingerprints(b"".join(made.values()))


def test_of_a_certifi_with_damaged_marks_only_what_stands_before_them_is_the_base() -> None:
    damaged = certifi(content=SHIPPED + b"# BEGIN ca-shim\n" + A.pem, blocked="damaged")
    content = files(make(machine(RHEL, damaged), B))["/run/ca-shim/python.pem"]

    assert bundle.fingerprints(content) == bundle.fingerprints(SHIPPED + B.pem)


def test_without_any_certifi_bundle_python_starts_from_the_store_of_the_system() -> None:
    unreadable = certifi(content=b"", blocked="it cannot be read")
    content = files(make(machine(RHEL, unreadable), A))["/run/ca-shim/python.pem"]

    assert bundle.fingerprints(content) == bundle.fingerprints(SHIPPED + A.pem)


def test_a_store_that_failed_is_overridden_in_the_next_plan() -> None:
    made = make(machine(RHEL, certifi()), A, failed={RHEL.path: "disk full"})

    assert made.variables["SSL_CERT_FILE"] == "/run/ca-shim/os.pem"


def test_a_directory_that_failed_gives_way_to_the_next() -> None:
    second = Directory("/tmp/ca-shim-0", exists=False, writable=True, files=())
    made = make(machine(directories=(RUN, second)), A, failed={RUN.path: "disk full"})

    assert made.directory == second.path


def test_a_directory_of_root_s_that_holds_what_is_needed_is_used_by_others() -> None:
    mine = Directory("/tmp/ca-shim-1000", exists=False, writable=True, files=())
    roots = tuple((path.rpartition("/")[2], content) for path, content in files(make(BLOCKED, A)).items())
    seen = BLOCKED._replace(directories=(RUN._replace(files=roots, writable=False), mine))

    assert (make(seen, A).directory, make(seen, A).steps) == (RUN.path, ())


def test_without_a_directory_no_variable_is_set_and_the_stores_are_named() -> None:
    made = make(BLOCKED._replace(directories=()), A)

    assert made.variables == {}
    assert [store for store, _ in made.unserved] == [RHEL.path, CERTIFI]


def test_without_a_directory_the_variables_are_named_whose_clients_no_store_reaches() -> None:
    made = make(machine(RHEL)._replace(directories=()), A)

    assert made.unserved == (("NODE_EXTRA_CA_CERTS", "no directory for override bundles is usable"),)


def test_override_bundles_that_nobody_needs_any_more_are_removed() -> None:
    old = RUN._replace(files=(("os.pem", b""), ("env", b"")))
    made = make(machine(directories=(old,)))

    assert [(step.action, step.path) for step in made.override] == [
        ("remove", "/run/ca-shim/env"),
        ("remove", "/run/ca-shim/os.pem"),
    ]


def test_a_directory_that_is_not_there_is_made_first() -> None:
    made = make(machine(directories=(RUN._replace(exists=False),)), A)

    assert (made.override[0].action, made.override[0].path) == ("mkdir", RUN.path)


def test_the_file_for_shells_exports_the_variables() -> None:
    content = files(make(machine(), A))["/run/ca-shim/env"]

    assert content == b"export NODE_EXTRA_CA_CERTS=/run/ca-shim/extra.pem\n"


def test_what_p11_kit_drops_is_in_the_bundle_of_requests_and_not_in_that_of_openssl() -> None:
    made = files(make(BLOCKED, A, NOT_CA))
    has = {path: NOT_CA.sha256 in bundle.fingerprints(content) for path, content in made.items()}

    assert (has["/run/ca-shim/os.pem"], has["/run/ca-shim/python.pem"]) == (False, True)


@pytest.mark.parametrize(
    ("variable", "file"),
    [
        pytest.param("SSL_CERT_FILE", "os.pem", id="SSL_CERT_FILE"),
        pytest.param("REQUESTS_CA_BUNDLE", "python.pem", id="REQUESTS_CA_BUNDLE"),
        pytest.param("PIP_CERT", "pip.pem", id="PIP_CERT"),
        pytest.param("NODE_EXTRA_CA_CERTS", "extra.pem", id="NODE_EXTRA_CA_CERTS"),
    ],
)
def test_a_bundle_that_somebody_chose_is_merged_with_the_cas(variable: str, file: str) -> None:
    own = root("Corporate")
    made = make(machine(RHEL, certifi(), settings=(setting(variable, "/corp.pem", own.pem),)), A)

    assert bundle.fingerprints(files(made)[f"/run/ca-shim/{file}"]) == {own.sha256, A.sha256}


def test_a_variable_that_points_to_nothing_gets_the_store_and_the_cas() -> None:
    made = make(machine(RHEL, certifi(), settings=(setting("PIP_CERT", "/gone.pem", None),)), A)

    assert bundle.fingerprints(files(made)["/run/ca-shim/pip.pem"]) == bundle.fingerprints(SHIPPED + A.pem)


def test_a_variable_that_points_to_an_overridden_certifi_starts_from_it_without_our_block() -> None:
    baked = certifi(content=bundle.join(SHIPPED, (B.item,)), blocked=READ_ONLY)
    made = make(machine(RHEL, baked, settings=(setting("PIP_CERT", CERTIFI, baked.content),)), A)

    assert bundle.fingerprints(files(made)["/run/ca-shim/pip.pem"]) == bundle.fingerprints(SHIPPED + A.pem)


def test_a_variable_that_points_to_the_overridden_system_bundle_starts_from_it_without_our_anchors() -> None:
    baked = RHEL._replace(content=SHIPPED + B.pem, anchors=anchors(RHEL, B), blocked=READ_ONLY)
    made = make(machine(baked, settings=(setting("PIP_CERT", "/link.pem", baked.content, baked.path),)), A)

    assert bundle.fingerprints(files(made)["/run/ca-shim/pip.pem"]) == bundle.fingerprints(SHIPPED + A.pem)


def test_the_steps_come_store_by_store_and_the_override_last() -> None:
    made = make(machine(RHEL, certifi()), A)

    stores = [RHEL.path, CERTIFI, "/run/ca-shim/extra.pem", "/run/ca-shim/env"]

    assert list(dict.fromkeys(step.store for step in made.steps)) == stores


# What only a rare machine shows


def test_a_certifi_out_of_reach_that_ships_our_ca_by_now_needs_no_override() -> None:
    upgraded = certifi(content=bundle.join(SHIPPED + A.pem, (A.item,)), blocked=READ_ONLY)

    assert make(machine(RHEL, upgraded), A).variables.keys() == {"NODE_EXTRA_CA_CERTS"}


def test_shims_that_find_certifi_bundles_in_another_order_leave_each_others_bundle_alone() -> None:
    first = certifi("/first/cacert.pem", blocked=READ_ONLY)
    second = certifi("/second/cacert.pem", pems(root("Shipped 3")), READ_ONLY)
    system = RHEL._replace(blocked=READ_ONLY)
    made = make(machine(system, second, first), A)
    left = tuple((path.rpartition("/")[2], content) for path, content in files(made).items())

    assert make(machine(system, first, second, directories=(RUN._replace(files=left),)), A).steps == ()


def test_curl_gets_its_own_bundle_while_a_withdrawn_ca_stays_in_the_system_s() -> None:
    stuck = RHEL._replace(content=SHIPPED + A.pem, anchors=anchors(RHEL, A), blocked=READ_ONLY)
    made = make(machine(stuck, certifi()))

    assert made.variables["CURL_CA_BUNDLE"] == "/run/ca-shim/os.pem"
    assert bundle.fingerprints(files(made)["/run/ca-shim/os.pem"]) == bundle.fingerprints(SHIPPED)


def test_a_variable_that_points_to_a_store_with_a_withdrawn_ca_is_pointed_elsewhere() -> None:
    """Although no CA is wanted any more, and nothing else asks for this variable."""
    content = bundle.join(SHIPPED, (A.item,))
    stuck = machine(
        RHEL, certifi(content=content, blocked=READ_ONLY), settings=(setting("PIP_CERT", CERTIFI, content),)
    )
    made = make(stuck)

    assert made.variables["PIP_CERT"] == "/run/ca-shim/pip.pem"
    assert bundle.fingerprints(files(made)["/run/ca-shim/pip.pem"]) == bundle.fingerprints(SHIPPED)
