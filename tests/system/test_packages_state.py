# SPDX-License-Identifier: LGPL-2.1-or-later
"""What becomes of routes, and of what is pinned in the kernel, when the Debian packages are upgraded, installed again,
removed and purged: in the machine's network namespace and in a named one. `tests/packages` builds them and runs this;
packaged.py says what it needs.
"""
import json
import os
import pathlib

import pytest
from packaged import APT, PACKAGES, SERVE, Packaged, repack

pytestmark = pytest.mark.skipif(not PACKAGES, reason="no packages: tests/packages makes them, and runs this")
# Routes by a policy, in both namespaces, beside those of others: by hand, for hello.service, and in the same tables.
ROUTES = """
sed -i '/^Unit=/a LocalRoutes=yes' /etc/sockbroker/conf.d/echo.conf
mkdir -p /etc/sockbroker/netns/edge/conf.d && cp /etc/sockbroker/conf.d/echo.conf /etc/sockbroker/netns/edge/conf.d/
sed -i '/^Unit=/a Announce=any' /etc/sockbroker/conf.d/echo.conf
ip route del local 198.51.100.0/24 dev lo && ip route del local 2001:db8:2::/48 dev lo
ip netns add edge && ip -n edge link set lo up
ip route add local 203.0.113.0/24 dev lo proto static && ip route add blackhole 203.0.113.0/24 table 153 proto static
systemctl reload sockbrokerd && systemctl start sockbrokerd@edge.service sockbroker-routes@edge.socket
systemctl restart sockbrokerd@edge.service
"""
SHOW = ("for netns in '' '-n edge'; do for family in -4 -6; do ip $netns $family route show table all proto PROTO; "
        "done; done")
LOCAL = ["local 198.51.100.0/24", "local 2001:db8:2::/48"]
# The machine's, then those of edge, where nobody serves.
MADE = sorted(["blackhole 198.51.100.0/24", "blackhole 2001:db8:2::/48", *LOCAL, *LOCAL])
# What has the dispatch, and the sockets. The programs are newer ones after an upgrade.
PINS = "link", "arena", "tables", "services", "slots", "sockets", "registrants", "counters"
CHANGES = "/root/changes"
ALL = "sockbroker-exporter sockbroker"
# As after a boot with a broker that is disabled: nothing is mounted, and there is no directory.
BOOTED_WITHOUT = """
systemctl disable --now sockbrokerd.socket sockbrokerd.service sockbroker-routes.socket
systemctl stop 'sockbrokerd@*' 'sockbroker-routes@*'
sockbrokerctl unload --local-routes && sockbrokerctl --netns=edge unload --local-routes
systemctl stop sockbrokerd-links.socket 'sockbrokerd-links@*.socket'
umount /run/sockbroker/bpf && rm -r /run/sockbroker
"""
BEFORE = {
    "as it runs": "true",
    "stopped": "systemctl stop sockbrokerd.socket sockbrokerd.service 'sockbrokerd@*'",
    "without its route makers": "systemctl stop 'sockbroker-routes*.socket' 'sockbroker-routes*.service'",
    "unloaded, which leaves local routes": "sockbrokerctl unload && sockbrokerctl --netns=edge unload",
    "booted without": BOOTED_WITHOUT,
}


@pytest.fixture(name="machine")
def _machine(tmp_path):
    machine = Packaged(None, tmp_path / "console.log", os.environ["SOCKBROKER_CLEAN"])
    machine.install(pathlib.Path(PACKAGES))
    machine.run(SERVE, timeout=120)
    machine.run(ROUTES)
    machine.until("all routes", lambda: routes(machine) == MADE)
    yield machine
    machine.end()


def routes(machine, proto: str = "83") -> list[str]:
    """Kind and prefix of each, which is all that counts."""
    return sorted(" ".join(line.split()[:2]) for line in machine.out(SHOW.replace("PROTO", proto)).splitlines())


def pins(machine) -> str:
    """Which they are: a pin that was made anew is another inode."""
    names = " ".join(f"{folder}dispatch/{name}" for folder in ("", "netns/edge/") for name in PINS)
    return machine.out(f"cd /run/sockbroker/bpf && stat -c '%n %i' {names}")


def rows(machine) -> list[dict]:
    return [{key: row[key] for key in ("service", "cookie", "since", "state", "pid")}
            for row in json.loads(machine.out("sockbrokerctl --json=short list"))]


def answer(machine, address: str) -> str:
    return machine.run(f"curl -sS -m 5 http://{address}/ 2>&1", check=False).stdout


def watch_routes(machine) -> None:
    """Writes down every change in both namespaces: the makers of routes put back at once what others remove."""
    machine.run(f"touch {CHANGES}")
    for netns, mark in ("", "203.0.113.1"), ("-n edge", "203.0.113.2"):
        machine.run(f"systemd-run --quiet -p StandardOutput=append:{CHANGES} ip {netns} monitor route")
        turn = (f"ip {netns} route replace blackhole {mark} table 9 && ip {netns} route del {mark} table 9; "
                f"cat {CHANGES}")
        machine.until("the monitor", lambda turn=turn, mark=mark: f"Deleted blackhole {mark}" in machine.out(turn))
    machine.run(f"truncate -s 0 {CHANGES}")


def nothing_of_it_is_left(machine) -> None:
    """Neither its routes nor its dispatch: whoever listens on all addresses has them again, as without a broker. What
    others have made stays."""
    assert routes(machine) == []
    assert routes(machine, "static") == ["blackhole 203.0.113.0/24", "local 203.0.113.0/24"]
    assert machine.run("mountpoint -q /run/sockbroker/bpf", check=False).returncode != 0
    assert machine.run("ls -d /run/sockbroker", check=False).returncode != 0
    machine.run("systemd-run --quiet --unit=everywhere python3 -m http.server --bind 0.0.0.0 -d /usr/share/doc 80")
    machine.until("others to be served", lambda: "Directory listing" in answer(machine, "192.0.2.1"))
    machine.run("systemctl stop everywhere.service")


def test_upgrade_way_back_and_the_same_version_again_touch_no_route_and_no_socket(machine, tmp_path):
    watch_routes(machine)
    pinned, registered = pins(machine), rows(machine)
    assert len(registered) == 3
    newer = repack(pathlib.Path(PACKAGES), tmp_path / "newer", "+1")
    brokers = [machine.show("sockbrokerd", "MainPID")]
    for folder, more in ((newer, ""), (pathlib.Path(PACKAGES), ""), (pathlib.Path(PACKAGES), "--reinstall")):
        machine.run(f"{APT} install {more} {machine.bring(folder, folder.name)}/*.deb", timeout=300)
        brokers.append(machine.show("sockbrokerd", "MainPID"))
        machine.until("the new broker", lambda: machine.run("sockbrokerctl status && sockbrokerctl --netns=edge status",
                                                            check=False).returncode == 0)
        assert (pins(machine), rows(machine), routes(machine)) == (pinned, registered, MADE)
    assert len({*brokers, "0"}) == 5, "each time a new one"
    assert machine.out(f"cat {CHANGES}") == "", "not even for a moment"


@pytest.mark.parametrize("before", BEFORE)
def test_removal_takes_routes_and_dispatch_of_every_namespace_and_says_nothing(machine, before):
    machine.run(BEFORE[before])
    said = machine.run(f"apt-get -q -y remove {ALL} 2>&1", timeout=120).stdout
    assert "sockbrokerctl" not in said and "umount" not in said and "arning" not in said, said
    nothing_of_it_is_left(machine)


def test_a_purge_without_a_removal_before_it_takes_the_state_too(machine):
    machine.run(f"dpkg --purge {ALL}", timeout=120)
    nothing_of_it_is_left(machine)
    assert machine.run("ls -d /var/lib/sockbroker", check=False).returncode != 0
    assert machine.out("ls /etc/sockbroker/conf.d").split() == ["echo.conf", "hello.conf"]


@pytest.mark.parametrize("how", ("remove", "purge"))
def test_what_is_installed_again_serves_by_the_policies_that_were_kept(machine, how):
    machine.run(f"apt-get -q -y {how} {ALL}", timeout=120)
    machine.install(pathlib.Path(PACKAGES))
    assert machine.out("systemctl is-enabled sockbrokerd.socket sockbrokerd.service").split() == ["enabled"] * 2
    machine.until("local routes", lambda: routes(machine) == LOCAL)  # the broker of edge is not anybody's to start
    machine.run("systemctl restart hello.service echo.service")
    for service in "hello", "echo":
        machine.run(f"sockbrokerctl wait {service} --for=live --timeout=30s")
    assert answer(machine, "192.0.2.1") == "hello, you asked for 192.0.2.1 port 80\n"
    machine.until("announced", lambda: routes(machine) == sorted([*LOCAL, *(line.replace("local", "blackhole")
                                                                            for line in LOCAL)]))
    assert machine.failed() == ""


def test_a_removal_in_a_chroot_leaves_the_dispatch_and_the_routes_of_its_host(machine):
    """dpkg runs there in the network namespace of the host."""
    watch_routes(machine)
    machine.run("mkdir /mnt/over && mount -t tmpfs tmpfs /mnt/over && cd /mnt/over && mkdir upper work all && "
                "mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay all")
    machine.run(f"chroot /mnt/over/all apt-get -q -y remove {ALL}", timeout=120)
    assert machine.run("ls /mnt/over/all/usr/bin/sockbrokerctl", check=False).returncode != 0
    assert (routes(machine), machine.out(f"cat {CHANGES}")) == (MADE, "")
    assert answer(machine, "192.0.2.1") == "hello, you asked for 192.0.2.1 port 80\n"
    machine.run("sockbrokerctl status && sockbrokerctl --netns=edge status")
