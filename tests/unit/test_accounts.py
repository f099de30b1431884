"""Users and groups by their files."""

from __future__ import annotations

import pytest

from shim import accounts
from shim.accounts import Account
from shim.errors import PrivilegeError, UnknownUserError

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
broken line
bad:x:abc:0::/:/bin/sh
huge:x:4294967295:0::/:/bin/sh
:x:7:7::/:/bin/sh
+nis
anchore:x:1000:1000:Anchore:/home/anchore:/bin/bash
second:x:1000:1001::/home/second:/bin/sh
1001:x:2000:2000::/home/digits:/bin/sh
homeless:x:3000:3000:::/bin/sh
"""
GROUP = """\
root:x:0:
anchore:x:1000:
docker:x:998:other,anchore
wheel:x:10:anchore
same:x:1000:anchore
like:x:11:anchore2
2000:x:5:
bad:x:-1:anchore
"""


@pytest.mark.parametrize(
    ("wanted", "account"),
    [
        pytest.param("anchore", Account("anchore", 1000, 1000, (1000, 998, 10), "/home/anchore"), id="name"),
        pytest.param("1000", Account("anchore", 1000, 1000, (1000, 998, 10), "/home/anchore"), id="uid"),
        pytest.param("root", Account("root", 0, 0, (0,), "/root"), id="root"),
        pytest.param("0", Account("root", 0, 0, (0,), "/root"), id="root by number"),
        pytest.param("anchore:wheel", Account("anchore", 1000, 10, (10,), "/home/anchore"), id="name and group"),
        pytest.param("anchore:77", Account("anchore", 1000, 77, (77,), "/home/anchore"), id="name and unlisted gid"),
        pytest.param("54321:0", Account("54321", 54321, 0, (0,), ""), id="unlisted uid and gid"),
        pytest.param("54321:wheel", Account("54321", 54321, 10, (10,), ""), id="unlisted uid and group"),
        pytest.param("1001", Account("1001", 2000, 2000, (2000,), "/home/digits"), id="a name of digits before a uid"),
        pytest.param("anchore:2000", Account("anchore", 1000, 5, (5,), "/home/anchore"), id="a group of digits"),
        pytest.param("0:wheel", Account("root", 0, 10, (10,), "/root"), id="root by number, and group"),
        pytest.param("homeless", Account("homeless", 3000, 3000, (3000,), ""), id="no home"),
    ],
)
def test_an_account_is_found_with_its_groups(wanted: str, account: Account) -> None:
    assert accounts.find(wanted, PASSWD, GROUP) == account


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        pytest.param("nobody", "user 'nobody' is not in /etc/passwd", id="unknown name"),
        pytest.param("54321", "54321:GROUP", id="unlisted uid without a group"),
        pytest.param("54321:", "54321:GROUP", id="unlisted uid with an empty group"),
        pytest.param("anchore:nogroup", "group 'nogroup' is not in /etc/group", id="unknown group"),
        pytest.param("anchore:", "group '' is not in /etc/group", id="empty group"),
        pytest.param("-1:0", "user '-1'", id="negative uid"),
        pytest.param("4294967295:0", "user '4294967295'", id="the uid that means no change"),
        pytest.param("٣:0", "user", id="digits that are not ASCII"),
        pytest.param(":0", "user ''", id="no user"),
        pytest.param("bad", "user 'bad'", id="a line with a bad uid"),
        pytest.param("huge", "user 'huge'", id="a line with an impossible uid"),
        pytest.param("99999999999:0", "user", id="more digits than a uid has"),
        pytest.param("a\nb", r"'a\\nb'", id="newline"),
    ],
)
def test_an_unknown_account_is_an_error_that_names_it(wanted: str, sentence: str) -> None:
    with pytest.raises(UnknownUserError, match=sentence):
        accounts.find(wanted, PASSWD, GROUP)


@pytest.mark.parametrize("wanted", ["anchore", "anchore:anchore", "1000", "1000:1000", "00"])
def test_uid_0_is_only_for_who_asks_for_root(wanted: str) -> None:
    passwd = "root:x:0:0::/root:/bin/sh\nanchore:x:0:0::/home/anchore:/bin/sh\n1000:x:0:0::/:/bin/sh\n"

    with pytest.raises(PrivilegeError, match=r"has uid 0 in /etc/passwd.*CA_SHIM_USER=root"):
        accounts.find(wanted, passwd, "anchore:x:1000:\n")


def test_the_primary_group_of_a_shared_uid_is_the_first_line_s() -> None:
    assert accounts.primary_groups(PASSWD)[1000] == 1000


def test_empty_files_know_nobody() -> None:
    assert accounts.primary_groups("") == {}
