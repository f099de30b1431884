"""The facts hold together: no row contradicts another."""

from __future__ import annotations

import pytest

from shim import families
from shim.families import GENERATIONS, Family, Generation
from tests.edge.machine import OS_RELEASES

ROWS = [pytest.param(row, id=row.versions) for row in GENERATIONS]


def test_every_generation_of_anchore_has_its_row() -> None:
    assert len(GENERATIONS) == 8


@pytest.mark.parametrize("row", ROWS)
def test_the_certifi_of_a_generation_is_in_a_place_that_is_searched(row: Generation) -> None:
    python = next(part for part in row.certifi.split("/") if part.startswith("python"))
    collection = row.certifi.replace(python, "python*").replace("rh-python36", "*").removesuffix("/certifi")

    assert collection in families.SITE_DIRECTORIES


@pytest.mark.parametrize("row", ROWS)
def test_the_user_of_a_generation_is_the_default_or_root(row: Generation) -> None:
    assert row.user in (families.DEFAULT_USER, "root")


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.name)
def test_the_marker_of_a_family_lies_where_its_tool_does_not_look(family: Family) -> None:
    assert not family.state.startswith(family.anchors + "/")
    assert not family.state.endswith(".crt")


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.name)
def test_the_bundle_of_a_family_is_in_the_list_of_bundles(family: Family) -> None:
    assert family.bundle in families.OS_BUNDLES


def test_every_family_has_a_machine_that_it_is_tried_on() -> None:
    without = [family.name for family in families.FAMILIES if family.name not in OS_RELEASES]

    assert not without, (
        f"tests/edge/machine.py: add {without} to OS_RELEASES, and how its tool reads anchors to Machine"
    )


def test_no_identifier_belongs_to_two_families() -> None:
    ids = [each for family in families.FAMILIES for each in family.ids]

    assert len(ids) == len(set(ids))


def test_no_variable_has_two_rows() -> None:
    names = [row.name for row in families.VARIABLES]

    assert len(names) == len(set(names))


def test_a_variable_that_is_left_alone_has_no_row() -> None:
    assert families.CERT_DIR not in {row.name for row in families.VARIABLES}


@pytest.mark.parametrize("row", families.VARIABLES, ids=lambda row: row.name)
def test_every_variable_has_a_bundle_that_nobody_chose(row: families.Variable) -> None:
    assert row.store_file in ("os.pem", "python.pem", "extra.pem")


def test_a_place_has_at_most_one_asterisk_in_a_component() -> None:
    patterns = (*families.SITE_DIRECTORIES, *families.SITE_BELOW_PREFIX)

    assert not [each for pattern in patterns for each in pattern.split("/") if each.count("*") > 1]
