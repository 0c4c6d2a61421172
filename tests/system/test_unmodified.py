# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers as Debian packages them, with their own units and settings, made unprivileged by one drop-in each of
units/examples/unmodified. They are unpacked into a machine of their own, not installed."""
import os

import pytest
import unpacked
from conftest import EXAMPLES, SOURCE

PACKAGES = "nginx", "unbound", "haproxy", "knot", "redis-server", "bind9"
ACCOUNTS = "www-data", "haproxy", "knot", "redis", "bind", "unbound"
ADDRESSES = "198.51.100.7", "2001:db8:2::7"
POLICY = """\
[Service {name}]
Unit={unit}
{lines}
"""


@pytest.fixture(scope="module")
def packaged(stage, tmp_path_factory):
    """A machine that has the packages' files, and none of their services enabled."""
    base = os.environ.get("SOCKBROKER_SYSTEM_ROOT", "/")  # another Debian, see tests/debian
    try:
        with unpacked.machine(stage, tmp_path_factory.mktemp("packaged"), PACKAGES, ACCOUNTS, base) as machine:
            for prefix in ("198.51.100.0/24", "2001:db8:2::/48"):
                machine.run(f"ip route add local {prefix} dev lo")
            yield machine
    except unpacked.NotToBeHad as error:
        pytest.skip(str(error))


@pytest.fixture
def start(packaged):
    """start(unit, name, policy lines): with its drop-in, until it serves."""
    started = []

    def begin(unit, name, *lines, sockets=0, count=2):
        service = f"{unit}.service"
        packaged.run(f"install -D -m 644 {EXAMPLES}/unmodified/{unit}.conf "
                     f"/etc/systemd/system/{service}.d/50-supervise.conf")
        packaged.write(f"/etc/sockbroker/conf.d/{name}.conf",
                       POLICY.format(name=name, unit=service, lines="\n".join(lines)))
        if sockets:
            packaged.run(f"cp {EXAMPLES}/unmodified/{unit}-udp.socket /etc/systemd/system/")
            started.append(f"{unit}-udp.socket")
        packaged.run("systemctl daemon-reload && systemctl start sockbrokerd.service && systemctl reload sockbrokerd")
        started.append(service)
        try:
            packaged.run(f"systemctl start {' '.join(started)}")
            packaged.until(f"{service} to serve", lambda: len(live(packaged, name)) >= count)
        except AssertionError as error:
            raise AssertionError(
                f"{error}\n{packaged.out('journalctl -q -b -n 40 -o cat -u ' + service + '')}") from None
        pids = packaged.out(f"cat /sys/fs/cgroup/system.slice/{service}/cgroup.procs").split()
        # One of them may have ended by now.
        capabilities = packaged.run("sed -n 's/^CapEff:[[:space:]]*//p' "
                                    + " ".join(f"/proc/{pid}/status" for pid in pids), check=False).stdout
        assert set(capabilities.split()) == {"0" * 16}, capabilities
        return packaged

    yield begin
    packaged.run("systemctl stop " + " ".join(started), check=False)
    packaged.run("rm -f /etc/sockbroker/conf.d/*.conf; systemctl reload sockbrokerd", check=False)


def live(machine, name):
    import json  # pylint: disable=import-outside-toplevel
    rows = json.loads(machine.out("sockbrokerctl --json=short list"))
    return [row for row in rows if row["service"] == name and row["state"] == "live"]


def streams(port):
    return f"ListenStream=198.51.100.0/24:{port}", f"ListenStream=[2001:db8:2::]/48:{port}"


def datagrams(port):
    return f"ListenDatagram=198.51.100.0/24:{port}", f"ListenDatagram=[2001:db8:2::]/48:{port}"


def test_nginx_as_packaged(start):
    machine = start("nginx", "nginx", *streams(80))
    for address in "198.51.100.7", "[2001:db8:2::7]":
        assert "nginx" in machine.out(f"curl -s http://{address}/")
    [pid] = {row["pid"] for row in live(machine, "nginx")}
    assert str(pid) == machine.show("nginx.service", "MainPID")
    assert {row["unit"] for row in live(machine, "nginx")} == {"nginx.service"}
    before = live(machine, "nginx")
    machine.run("systemctl reload nginx.service")
    assert live(machine, "nginx") == before
    machine.run("systemctl restart nginx.service")
    machine.until("it to serve again", lambda: len(live(machine, "nginx")) == 2)
    assert "nginx" in machine.out("curl -s http://198.51.100.7/")
    machine.run("systemctl stop nginx.service")
    assert machine.show("nginx.service", "ActiveState") == "inactive"
    assert machine.show("nginx.service", "Result") == "success"


def test_nginx_that_forks_as_its_unit_has_it(start, packaged):
    """Type=forking and PIDFile=, as packaged: the process that has listened is gone then, and its child is known."""
    drop_in = (SOURCE / "units/examples/unmodified/nginx.conf").read_text()
    drop_in = drop_in.replace("Type=exec\nPIDFile=\n", "Type=forking\nPIDFile=/run/nginx.pid\n").replace(
        "-g 'daemon off;'", "-g 'daemon on; master_process on;'")
    packaged.write("/etc/systemd/system/nginx.service.d/60-forks.conf", drop_in)
    machine = start("nginx", "nginx", *streams(80))
    try:
        machine.run("systemctl daemon-reload && systemctl restart nginx.service")
        assert machine.show("nginx.service", "Type") == "forking"
        assert "nginx" in machine.out("curl -s http://198.51.100.7/")
        master = machine.show("nginx.service", "MainPID")
        assert machine.out(f"cat /proc/{master}/comm") == "nginx"
        machine.until("its master to be known",
                      lambda: {(str(row["pid"]), row["unit"]) for row in live(machine, "nginx")} == {
            (master, "nginx.service")})
        machine.run("systemctl stop nginx.service")
        assert machine.out("systemctl show -P ControlGroup nginx.service | xargs -I{} sh -c 'cat "
                           "/sys/fs/cgroup{}/cgroup.procs "
                           "2>/dev/null'") == ""  # the supervisor has ended too
    finally:
        packaged.run("rm /etc/systemd/system/nginx.service.d/60-forks.conf")


def test_haproxy_as_packaged(start, packaged):
    packaged.run("sed -i '/chroot\\|user \\|group \\|stats socket/d' /etc/haproxy/haproxy.cfg && printf '%s\\n' "
                 "'frontend web' "
                 "'  bind 0.0.0.0:80' '  bind [::]:80 v6only' '  http-request return status 200 content-type "
                 "text/plain "
                 "string served' >> /etc/haproxy/haproxy.cfg")
    machine = start("haproxy", "haproxy", *streams(80))
    for address in "198.51.100.7", "[2001:db8:2::7]":
        assert machine.out(f"curl -s http://{address}/") == "served"
    machine.run("systemctl reload haproxy.service")
    assert machine.out("curl -s http://198.51.100.7/") == "served"


def test_knot_as_packaged(start, packaged):
    packaged.write("/etc/knot/knot.conf", "server:\n  rundir: /run/knot\n  listen: [ 0.0.0.0@53, \"::@53\" ]\n"
                   "database:\n  storage: /var/lib/knot\nzone:\n  - domain: x\n    storage: /etc/knot\n    file: zone\n"
                   "    journal-content: none\n    zonefile-load: whole\n")
    packaged.write("/etc/knot/zone", "$ORIGIN x.\n$TTL 60\n@ SOA ns.x. a.x. 1 60 60 60 60\n@ NS ns.x.\na A "
                                     "192.0.2.99\nns A 192.0.2.98\n")
    machine = start("knot", "knot", *streams(53), *datagrams(53), sockets=1, count=4)
    for address in ADDRESSES:
        for how in "+tcp", "+notcp":
            assert machine.out(f"dig +short {how} @{address} a.x") == "192.0.2.99"


def test_unbound_as_packaged(start, packaged):
    packaged.write("/etc/unbound/unbound.conf.d/00-test.conf",
                   'server:\n  username: ""\n  chroot: ""\n  interface-automatic: yes\n'
                   "  interface: 0.0.0.0\n  interface: ::0\n  access-control: 0.0.0.0/0 allow\n  access-control: ::0/0 "
                   "allow\n"
                   '  use-syslog: no\n  module-config: "iterator"\n  local-zone: "x." static\n  local-data: "a.x. A '
                   '192.0.2.99"\n')
    packaged.run("rm -f /etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf; "
                 "sed -i s,/run/unbound.ctl,/run/unbound/unbound.ctl, /etc/unbound/unbound.conf.d/remote-control.conf")
    machine = start("unbound", "unbound", *streams(53), *datagrams(53), sockets=1, count=4)
    for address in ADDRESSES:
        for how in "+tcp", "+notcp":
            assert machine.out(f"dig +short {how} @{address} a.x") == "192.0.2.99"
    assert "is running" in machine.out("unbound-control status")


def test_redis_as_packaged(start, packaged):
    packaged.run("sed -i 's/^bind .*/bind 0.0.0.0 ::/; s/^protected-mode .*/protected-mode no/' /etc/redis/redis.conf "
                 "&& "
                 "chmod 644 /etc/redis/redis.conf && mkdir -p /var/lib/redis /var/log/redis && chown redis "
                 "/var/lib/redis /var/log/redis")
    machine = start("redis-server", "redis", *streams(6379))
    for address in ADDRESSES:
        assert machine.out(f"redis-cli -h {address} ping") == "PONG"


def test_named_as_packaged(start, packaged):
    packaged.run("ip addr add 198.51.100.7/32 dev lo; ip addr add 2001:db8:2::7/128 dev lo; "
                 "mkdir -p /var/cache/bind && chown bind /var/cache/bind; mkdir -p /etc/default && echo 'OPTIONS=' "
                 ">/etc/default/named")
    packaged.write("/etc/bind/named.conf", 'options { directory "/var/cache/bind"; listen-on { any; }; listen-on-v6 { '
                                           'any; }; '
                   'recursion no; session-keyfile none; pid-file "/run/named/named.pid"; dnssec-validation no; '
                   '};\ncontrols { };\n'
                   'zone "x" { type primary; file "/etc/bind/db.x"; };\n')
    packaged.write("/etc/bind/db.x", "$ORIGIN x.\n$TTL 60\n@ SOA ns.x. a.x. 1 60 60 60 60\n@ NS ns.x.\na A "
                                     "192.0.2.99\nns A 192.0.2.98\n")
    machine = start("named", "named", *streams(53), *datagrams(53), "UdpReply=original", count=4)
    for address in ADDRESSES:
        for how in "+tcp", "+notcp":
            assert machine.out(f"dig +short {how} @{address} a.x") == "192.0.2.99"
