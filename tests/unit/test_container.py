"""What tells a container from the others of its pod."""

from __future__ import annotations

import pytest

from shim import container

_OVERLAY = "overlay overlay rw,lowerdir=/var/lib/x/1/fs,upperdir=/var/lib/x/{}/fs,workdir=/var/lib/x/{}/work"
_LOG = "/var/lib/kubelet/pods/0a1b/containers/{}/{} /dev/termination-log rw,relatime - ext4 /dev/sda1 rw"


def mounts(upper: str = "7", device: str = "0:50", *more: str, options: str = _OVERLAY) -> str:
    root = f"612 500 {device} / / ro,relatime master:88 - {options.format(upper, upper)}"
    return "\n".join([root, "613 612 0:51 / /proc rw - proc proc rw", *more, ""])


def log(name: str, number: str) -> str:
    return f"640 612 8:1 {_LOG.format(name, number)}"


FUSE = "fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0,group_id=0"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(mounts(), mounts(), True, id="the same container"),
        pytest.param(mounts(device="0:50"), mounts(device="0:73"), True, id="restarted by Docker"),
        pytest.param(mounts("7"), mounts("8"), False, id="two of Docker's"),
        pytest.param(mounts(options=FUSE), mounts(device="0:73", options=FUSE), False, id="two on fuse-overlayfs"),
        pytest.param(
            mounts("7", "0:50", log("api", "1f")),
            mounts("9", "0:73", log("api", "2e")),
            True,
            id="restarted by a kubelet",
        ),
        pytest.param(
            mounts("7", "0:50", log("api", "1f")), mounts("9", "0:73", log("feeds", "1f")), False, id="two of a pod"
        ),
        pytest.param("", "\n\n\0 a b", True, id="nothing is known"),
    ],
)
def test_containers_of_one_host_are_told_apart(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a column of the table
    assert (container.identity(one, "pod") == container.identity(other, "pod")) is same


def test_pods_that_share_a_volume_over_the_network_are_told_apart() -> None:
    assert container.identity(mounts(), "pod-1") != container.identity(mounts(), "pod-2")
