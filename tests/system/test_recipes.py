# SPDX-License-Identifier: LGPL-2.1-or-later
"""docs/recipes.md: each section on a machine as a reader would follow it, files and commands, then asked from another
host at several addresses. Some run always, SOCKBROKER_LONG runs all, on a machine that has Debian's packages."""
import json
import os
import pathlib
import re
import shlex

import documents
import pytest
import unpacked
from conftest import PREFIXES, SOURCE
from test_documents import Reader

PAGE = SOURCE / "docs/recipes.md"
ADDRESSES = "198.51.100.7", "198.51.100.200", "2001:db8:2::7", "2001:db8:2:1::99"
PACKAGES = ("nginx", "haproxy", "caddy", "nodejs", "golang-go", "golang-github-lucas-clemente-quic-go-dev",
            "postgresql-15", "nsd", "pdns-server", "pdns-backend-bind",
            "dnsmasq-base", "podman", "crun")
ACCOUNTS = "www-data", "caddy", "nsd", "pdns"
# What a container without CAP_AUDIT_CONTROL can do of PAM's session.
SESSION_OF_A_USER = """\
account required pam_permit.so
session optional pam_systemd.so
session required pam_permit.so
"""
long = pytest.mark.skipif("SOCKBROKER_LONG" not in os.environ, reason="a recipe of ./check --long")


def sections() -> dict[str, list[documents.Block]]:
    """Of the page, by heading."""
    found, lines = {}, PAGE.read_text().splitlines()
    heads = {number: line[3:] for number, line in enumerate(lines, 1) if line.startswith("## ")}
    for block in documents.blocks_of(PAGE):
        number = max(head for head in heads if head < int(block.where.split(":")[1]))
        found.setdefault(heads[number], []).append(block)
    return found


class Cook(Reader):
    """Follows a recipe, and has another host beyond a veth, with two addresses of each family."""

    OWN = {"ipv4": ("10.9.0.2", "10.9.0.130"), "ipv6": ("fd09::2", "fd09::1:2")}

    def __init__(self, machine):
        super().__init__(machine)
        machine.run("""ip netns add outside && ip link add inside type veth peer name eth0 netns outside &&
            ip addr add 10.9.0.1/24 dev inside && ip addr add fd09::1/64 dev inside nodad && ip link set inside up &&
            ip -n outside addr add 10.9.0.2/24 dev eth0 && ip -n outside addr add 10.9.0.130/24 dev eth0 &&
            ip -n outside addr add fd09::2/64 dev eth0 nodad && ip -n outside addr add fd09::1:2/64 dev eth0 nodad &&
            ip -n outside link set lo up && ip -n outside link set eth0 up &&
            ip -n outside route add default via 10.9.0.1 && ip -n outside route add default via fd09::1""")

        machine.run("mkdir -p /srv")
        machine.write("/etc/ssl/openssl.cnf", pathlib.Path("/etc/ssl/openssl.cnf").read_text())  # /etc began empty

    def follow(self, recipe: str, look=lambda: None) -> None:
        """`look`: called after each session."""
        for block in sections()[recipe]:
            if block.kind != "text" and self.runs(block):
                {"sh": self.script, "console": self.session, "file": self.file}[block.kind](block)
            if block.kind == "console":
                look()
        self.machine.run("systemctl daemon-reload")

    def outside(self, command: str, check: bool = True) -> str:
        return self.machine.run(f"nsenter --net=/run/netns/outside {command}", check=check, timeout=60).stdout.strip()

    def fetch(self, address: str, *options: str, scheme: str = "http", source: str = "") -> str:
        host = f"[{address}]" if ":" in address else address
        source = source or own_address(address)
        return self.outside(shlex.join(["curl", "-sk", "--max-time", "10", "--interface", source, *options,
                                        f"{scheme}://{host}/"]))

    def capabilities(self, unit: str) -> set[str]:
        """Of all processes of a unit."""
        group = self.machine.show(unit, "ControlGroup")
        return set(self.machine.out(f"for pid in $(find /sys/fs/cgroup{group} -name cgroup.procs -exec cat {{}} +); do "
                                    "sed -n 's/^CapEff:[[:space:]]*//p' /proc/$pid/status; done").split())

    def clean(self) -> None:
        self.machine.run("ip netns del outside; ip link del inside; rm -rf /srv/*", check=False)
        for unit in self.units:
            instances = unit.replace("@.", "@*.")
            self.machine.run(f"systemctl stop '{instances}'; rm -rf /etc/systemd/system/{unit}*", check=False)
        self.machine.run("rm -rf /etc/sockbroker/conf.d/*; systemctl daemon-reload; systemctl reload sockbrokerd",
                         check=False)


def own_address(asked: str, number: int = 0) -> str:
    return Cook.OWN["ipv6" if ":" in asked else "ipv4"][number]


@pytest.fixture
def cook(broker):
    made = Cook(broker.machine)
    broker.run("mkdir -p /etc/sockbroker/conf.d")
    yield made
    made.clean()


@pytest.fixture(scope="module")
def kitchen(stage, tmp_path_factory):
    """A machine with the packages."""
    if os.environ.get("SOCKBROKER_SYSTEM_ROOT", "/") != "/":
        pytest.skip("packages are unpacked for this machine's own Debian")
    try:
        with unpacked.machine(stage, tmp_path_factory.mktemp("machine"), PACKAGES, ACCOUNTS) as machine:
            for prefix in PREFIXES:
                machine.run(f"ip route add local {prefix} dev lo")
            # What installation has done, and scripts of the packages.
            machine.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
            machine.write("/etc/nsswitch.conf", "passwd: files systemd\ngroup: files systemd\nhosts: files\n")
            machine.run("chmod -R go+rX /etc/powerdns")
            yield machine
    except unpacked.NotToBeHad as error:
        pytest.skip(str(error))


@pytest.fixture
def chef(kitchen):  # pylint: disable=redefined-outer-name
    """The same, on a machine that has the packages."""
    made = Cook(kitchen)
    kitchen.run("mkdir -p /etc/sockbroker/conf.d; systemctl start sockbrokerd.service")
    yield made
    made.clean()


@pytest.fixture
def quay(stage, tmp_path):
    """On a machine with a podman that has Quadlet: of Debian 13, this machine's own or another (tests/debian)."""
    base = os.environ.get("SOCKBROKER_SYSTEM_ROOT", "/")
    packages = "podman", "crun", "uidmap", "dbus-user-session"
    try:
        if not (unpacked.unpack(packages, base) / "usr/libexec/podman/quadlet").exists():
            pytest.skip("podman 4.3 of Debian 12 has no Quadlet")
        with unpacked.machine(stage, tmp_path, packages, (), base) as machine:
            for prefix in PREFIXES:
                machine.run(f"ip route add local {prefix} dev lo")
            machine.run("mkdir -p /etc/sockbroker/conf.d; systemctl start sockbrokerd.service")
            yield Cook(machine)
    except unpacked.NotToBeHad as error:
        pytest.skip(str(error))


def answered(chef, unit: str, *addresses: str) -> None:  # pylint: disable=redefined-outer-name
    """A name server: dig takes no answer from another address or port than it has asked."""
    for address in addresses or ADDRESSES:
        for how in "+tcp", "+notcp":
            words = f"dig +short +tries=1 +time=5 {how} -b {own_address(address)} @{address} a.x"
            assert chef.outside(words) == "192.0.2.99", words
    assert chef.capabilities(unit) == {"0" * 16}


def seen_by(machine, unit: str) -> set[str]:
    """The clients that Python's server has written down."""
    machine.run("journalctl --sync")
    text = machine.out(f"journalctl -q -b -o cat -u {shlex.quote(unit)}")
    return {client.removeprefix("::ffff:") for client in re.findall(r'^(\S+) - - \[.*"GET', text, re.M)}


def test_each_section_has_a_test_and_a_row():
    text = PAGE.read_text()
    for name in sections():
        assert f"test_{re.sub(r'[^a-z0-9]+', '_', name.lower())}" in globals(), name
        assert f"| [{name}](#" in text, name


def test_ten_instances_of_a_template(cook):
    cook.follow("Ten instances of a template")
    machine = cook.machine
    machine.until("ten sockets", lambda: machine.out("sockbrokerctl list farm --no-legend | grep -c live") == "10")
    answers = {cook.fetch(address) for _ in range(40) for address in ADDRESSES}
    assert answers == {f"instance {number}" for number in range(1, 11)}
    assert {"10.9.0.2", "fd09::2"} <= seen_by(machine, "farm@*.service")
    machine.run("systemctl stop farm@3.service")
    assert "instance 3" not in {cook.fetch(address) for _ in range(20) for address in ADDRESSES}
    assert cook.capabilities("farm@1.service") == {"0" * 16}


def test_two_tenants(cook):
    cook.follow("Two tenants")
    for number, name in enumerate(("alpha", "beta")):
        for address in ADDRESSES[number], ADDRESSES[2 + number]:
            assert "NEWS.md" in cook.fetch(address, source=own_address(address, number))
        seen = seen_by(cook.machine, f"{name}.service")
        assert {own_address(address, number) for address in ADDRESSES} <= seen
        assert not {own_address(address, 1 - number) for address in ADDRESSES} & seen
        assert cook.capabilities(f"{name}.service") == {"0" * 16}
    cook.machine.run("systemctl stop beta.service")
    with pytest.raises(AssertionError, match="exit status 7"):  # refused: alpha does not get what is beta's
        cook.fetch("198.51.100.200")


def test_user_services(cook):
    machine = cook.machine
    machine.write("/etc/pam.d/systemd-user", SESSION_OF_A_USER)
    try:
        cook.follow("User services")
        for address in ADDRESSES:
            assert "NEWS.md" in cook.fetch(address)
        [row] = json.loads(machine.out("sockbrokerctl list home --json=short"))
        number = machine.out("id -u alice")
        assert (str(row["uid"]), row["unit"]) == (number, f"user@{number}.service")
        # The manager itself has CAP_WAKE_ALARM from systemd 254 on.
        assert machine.out(f"grep CapEff: /proc/{row['pid']}/status").split()[1] == "0" * 16
        assert set(map(own_address, ADDRESSES)) <= seen_by(machine, f"user@{number}.service")
    finally:
        machine.run("systemctl stop user@$(id -u alice).service; userdel -r alice; "
                    "rm -f /etc/systemd/user/home.service /etc/pam.d/systemd-user", check=False)


@long
def test_nginx_with_tls(chef):
    chef.follow("nginx with TLS")
    for address in ADDRESSES:
        assert chef.fetch(address, scheme="https") == f"{own_address(address)} asked {address}"
    assert chef.capabilities("nginx.service") == {"0" * 16}


@long
def test_blue_green_and_a_canary_with_tls(chef):
    chef.follow("Blue, green and a canary with TLS")
    for address in ADDRESSES:
        inner, outer = own_address(address, 1), own_address(address)
        assert chef.fetch(address, scheme="https", source=outer) == f"green for {outer} at {address}"
        assert chef.fetch(address, scheme="https", source=inner) == f"canary for {inner} at {address}"
    chef.machine.run("systemctl stop edge@canary.service")
    for address in ADDRESSES:
        inner = own_address(address, 1)
        assert chef.fetch(address, scheme="https", source=inner) == f"green for {inner} at {address}"
    assert chef.capabilities("edge@green.service") == {"0" * 16}


@pytest.fixture(scope="module")
def http3(kitchen):  # pylint: disable=redefined-outer-name
    """A client by quic-go of Debian, built in the machine."""
    kitchen.write("/run/http3/http3.go", (SOURCE / "tests/servers/http3.go").read_text())
    kitchen.run("cd /run/http3 && GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=/run/http3/cache CGO_ENABLED=0 "
                "go build http3.go", timeout=300)
    return "/run/http3/http3"


@long
def test_caddy(chef, http3):  # pylint: disable=redefined-outer-name
    chef.follow("caddy")
    for address in ADDRESSES:
        host = f"[{address}]" if ":" in address else address
        assert chef.outside(f"curl -sk --resolve example.org:443:{host} --interface {own_address(address)} "
                            "https://example.org/") == f"hello {own_address(address)} by HTTP/2.0"
        assert "https://" in chef.fetch(address, "-w", "%{redirect_url}")
        said = re.fullmatch("hello (.*) by HTTP/3.0", chef.outside(f"{http3} {address} example.org"))
        assert said and said[1] in Cook.OWN["ipv6" if ":" in address else "ipv4"]
    assert chef.capabilities("caddy.service") == {"0" * 16}


@long
def test_node_js(chef):
    chef.follow("Node.js")
    for address in ADDRESSES:
        assert chef.fetch(address).replace("::ffff:", "") == f"{own_address(address)} asked {address}"
    assert chef.capabilities("node.service") == {"0" * 16}


@long
def test_go(chef):
    chef.follow("Go")
    for address in ADDRESSES:
        said = re.fullmatch(r"\[?([^]]+?)\]?:\d+ asked \[?([^]]+?)\]?:80", chef.fetch(address))
        assert said and said.groups() == (own_address(address), address)
    assert chef.capabilities("hello.service") == {"0" * 16}


@long
def test_postgresql(chef):
    chef.follow("PostgreSQL")
    for address in ADDRESSES:
        said = chef.outside(f"/usr/lib/postgresql/15/bin/psql -h {address} -U ledger postgres -Atc "
                            "'select inet_client_addr(), inet_server_addr()'")
        client, server = said.split("|")
        assert server == address and client in Cook.OWN["ipv6" if ":" in address else "ipv4"]
    assert chef.capabilities("ledger.service") == {"0" * 16}


@long
def test_nsd(chef):
    chef.follow("NSD")
    answered(chef, "nsd.service")


@long
def test_powerdns(chef):
    chef.follow("PowerDNS")
    answered(chef, "pdns.service")


@long
def test_dnsmasq(chef):
    chef.follow("dnsmasq")
    answered(chef, "names.service", ADDRESSES[0], ADDRESSES[2])


@long
def test_a_container_without_a_network(chef):
    machine = chef.machine
    # The filter of the machine's own container lets nobody make a keyring.
    machine.write("/etc/containers/containers.conf", "[containers]\nkeyring=false\n")
    chef.follow("A container without a network")
    for user in "podder", "root":
        for address in ADDRESSES:
            assert chef.fetch(address).replace("::ffff:", "") == f"{own_address(address)} asked {address}"
        pid = machine.out("podman ps >/dev/null; pgrep -f '^/usr/bin/python3 /web.py'")
        assert machine.out(f"stat -c %U /proc/{pid}") == user
        assert machine.out(f"grep CapEff: /proc/{pid}/status").split()[1] == "0" * 16
        inside = json.loads(machine.out(f"nsenter --net=/proc/{pid}/ns/net ip -json link"))
        assert [link["ifname"] for link in inside] == ["lo"]
        machine.run("systemctl stop pod.service; rm -rf /etc/systemd/system/pod.service.d; systemctl daemon-reload; "
                    "systemctl start pod.service")


@long
def test_quadlet(quay):
    machine = quay.machine
    machine.write("/etc/pam.d/systemd-user", SESSION_OF_A_USER)
    # Of what contains this machine: nobody makes a keyring, and the controllers may be cgroup v1's.
    machine.write("/etc/containers/containers.conf", "[containers]\nkeyring=false\npids_limit=0\n")
    variants = []

    def look():
        for address in ADDRESSES:
            assert quay.fetch(address).replace("::ffff:", "") == f"{own_address(address)} asked {address}"
        pid = machine.out("pgrep -f '^/usr/bin/python3 /web.py'")
        assert machine.out(f"grep CapEff: /proc/{pid}/status").split()[1] == "0" * 16
        inside = json.loads(machine.out(f"nsenter --net=/proc/{pid}/ns/net ip -json link"))
        assert [link["ifname"] for link in inside] == ["lo"]
        supervised = machine.run("pgrep -f '^/usr/bin/sockbroker-run --supervise'", check=False).returncode == 0
        variants.append((machine.out(f"stat -c %u /proc/{pid}"), supervised))

    quay.follow("Quadlet", look)
    podder = machine.out("id -u podder")
    assert variants == [("0", False), ("61081", True), (podder, False), (podder, True)]
