# SPDX-License-Identifier: LGPL-2.1-or-later
"""UdpReply=original, row S5: an unmodified server's answer over UDP leaves from the address that its client asked, and
its unit binds the ports that policy grants it without a capability (which: test_udp_grants.py). Clients have connected
sockets, so that only answers of the asked address and port count."""

import ipaddress
import os
import socket

import pytest

from harness import client, earlier, faults, namespace, pins, units, worker
from harness.until import until
from waiting import inside
from words import ADDRESS, PORT, PREFIXES, add_routes, each_family, listen

UNIT = "dns.service"
UID = 61001
SERVER = {"ipv4": "127.0.0.2", "ipv6": "fd73:6f63:6b62::2"}  # addresses for sockets of services


def section(name, unit, *lines):
    return f"[Service {name}]\nUnit={unit}\n" + "".join(line.rstrip("\n") + "\n" for line in lines)


def policy(*more, name="dns", unit=UNIT, port=PORT):
    return section(name, unit, *(listen("udp", prefix, port) for prefix in PREFIXES.values()), *more)


def original(**words):
    return policy("UdpReply=original", **words)


def addresses(family, count):
    network = ipaddress.ip_network(PREFIXES[family])
    return [str(network[1 + i]) for i in range(count)]


def ask(address, text=b"who", port=PORT, timeout=20):
    """The answer to a connected socket; None: none came, or a refusal."""
    with socket.socket(client.family_of(address), socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, port))
        sock.send(text)
        try:
            return sock.recv(65535)
        except (TimeoutError, ConnectionRefusedError):
            return None


def links(broker):
    folder = broker.bpffs / "dispatch"
    return sorted(name for name in os.listdir(folder) if name.startswith("cgroup_"))


def pinned(cgroup):
    number = os.stat(cgroup).st_ino
    return sorted(f"cgroup_{number:016x}_{hook}" for hook in ("bind4", "bind6", "sendmsg4", "sendmsg6"))


def served(broker, serve, family="ipv4", text=None):
    add_routes()
    broker.policy(text or original()).start()
    one = serve()
    one.open(family, SERVER[family], PORT)
    reply = one.register("dns", family)
    assert reply.result == "ok" and "UdpReply" not in str(reply.warnings), reply
    return one


def conflicts(broker):
    return broker.status()[1]["dns"]["reply_conflicts"]


@each_family
@pytest.mark.parametrize("real", [False, True], ids=["anyip", "on_lo"])
@pytest.mark.parametrize("nonlocal_bind", [0, 1])
def test_s5_answers_leave_from_the_asked_address(broker, serve, remote, family, real, nonlocal_bind):
    if family == "ipv6":
        namespace.sysctl("net/ipv6/ip_nonlocal_bind", nonlocal_bind)
    if real:
        for address in addresses(family, 20):
            namespace.run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if family == "ipv6" else []))
    served(broker, serve, family)
    with inside(remote.pid):
        sockets = []
        for address in addresses(family, 20) * 3:  # all at once
            sockets.append(socket.socket(client.family_of(address), socket.SOCK_DGRAM))
            sockets[-1].settimeout(20)
            sockets[-1].connect((address, PORT))
        for number, sock in enumerate(sockets):
            sock.send(str(number).encode())
        for number, sock in enumerate(sockets):
            assert sock.recv(100) == str(number).encode()
            sock.close()
    assert conflicts(broker) == 0


@each_family
def test_s5_a_client_on_the_same_host_too(broker, serve, family):
    served(broker, serve, family)
    assert [ask(address) for address in addresses(family, 5)] == [b"who"] * 5


def test_s5_one_socket_for_both_families(broker, serve, remote):
    add_routes()
    broker.policy(original()).start()
    one = serve()
    one.open("dual", "127.0.0.2", PORT, dual=True)
    assert one.register("dns", "dual").result == "ok"
    with inside(remote.pid):
        assert [ask(ADDRESS[family]) for family in ("ipv4", "ipv6")] == [b"who", b"who"]


@each_family
def test_s5_a_source_that_the_program_sets_itself_is_left_alone(broker, serve, remote, family):
    one = served(broker, serve, family)
    one.be_silent(True)
    own = {"ipv4": namespace.HOST4, "ipv6": namespace.HOST6}[family]
    with inside(remote.pid), socket.socket(client.family_of(own), socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        for question in (b"chosen", b"segments" * 100, b"connected"):
            sock.sendto(question, (ADDRESS[family], PORT))
            one.waiting(1)
            if question == b"chosen":
                one.answer_from(family, own)
                assert sock.recvfrom(9000)[1][:2] == (own, PORT)
            elif question == b"connected":
                assert one.answer_connected(family) == own
                assert sock.recvfrom(9000)[1][0] == own
            else:
                one.answer_in_segments(family, 200)
                for _ in range(4):
                    data, source = sock.recvfrom(9000)
                    assert len(data) == 200 and source[:2] == (ADDRESS[family], PORT)


@each_family
def test_s5_one_port_that_asks_several_addresses_at_once_is_counted(broker, serve, remote, family):
    """The last one asked wins, and nothing in an answer could tell better."""
    one = served(broker, serve, family)
    first, second = addresses(family, 2)
    with inside(remote.pid), socket.socket(client.family_of(first), socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)

        def question(*asked):
            for address in asked:
                sock.sendto(b"?", (address, PORT))
            one.waiting(len(asked))
            one.answer_all()
            return [sock.recvfrom(100)[1][0] for _ in asked]

        one.be_silent(True)
        for _ in range(3):  # one after the other is no conflict
            assert question(first) == [first] and question(second) == [second]
        assert conflicts(broker) == 0
        assert question(first, second) == [second, second]
        assert conflicts(broker) == 1


def test_s5_a_unit_binds_the_ports_that_are_granted_and_no_other(broker, serve):
    namespace.sysctl("net/ipv4/ip_unprivileged_port_start", 1024)
    broker.policy(original(port=53) + policy("UdpReply=original", name="ntp", unit="ntp.service", port=123)).start()
    one, other, stranger = serve(), serve("ntp.service"), serve("stranger.service")
    places = [SERVER["ipv4"], "127.200.0.1", SERVER["ipv6"], "::1"]
    assert {one.open("early", place, 53) for place in places} == {"EACCES"}
    assert one.control("VERB=prepare").result == "ok"
    for number, place in enumerate(places):
        assert one.open(str(number), place, 53) not in ("EACCES", "EADDRINUSE")
    assert len(one.open("dual", "127.0.0.9", 53, dual=True)) == 16
    namespace.run("ip", "addr", "add", "192.0.2.1", "dev", "lo")
    for place in ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "fd73:6f63:6b63::1"):
        assert one.open("outside", place, 53) == "EACCES", place
    assert {one.open("other", place, 123) for place in places} == {"EACCES"}
    assert one.open_tcp(SERVER["ipv4"], 53) == "EACCES"
    assert other.open("ntp", SERVER["ipv4"], 123) == "EACCES"
    assert other.control("VERB=prepare\nFDNAME=ntp").result == "ok"
    assert len(other.open("ntp", SERVER["ipv4"], 123)) == 16
    assert other.open("dns", "127.0.0.7", 53) == "EACCES"
    assert stranger.control("VERB=prepare\nFDNAME=dns").result == "not-permitted"
    assert stranger.open("dns", "127.0.0.8", 53) == "EACCES"


def test_s5_the_programs_are_in_the_cgroup_of_the_admitted_unit_and_in_no_other(broker, serve, slice_):
    before = units.attached()
    one = served(broker, serve)
    # Other tests, beside this one, have slices of their own.
    now = {place: kinds for place, kinds in units.attached().items()
           if place not in before and ("/sbtest" not in place or place.startswith(str(slice_.path)))}
    assert list(now) == [str(slice_.path / UNIT)]
    assert links(broker) == pinned(slice_.path / UNIT)
    inner = slice_.unit(UNIT + "/worker")  # of the unit, and no unit
    two = worker.Worker(units.Server, inner, UID)
    two.open("x", "127.0.0.3", PORT)
    assert two.register("dns", "x").result == "ok"
    assert links(broker) == pinned(slice_.path / UNIT)
    two.kill()
    one.kill()


def test_s5_a_service_that_does_not_ask_for_it_pays_nothing(broker, serve, remote):
    add_routes()
    broker.policy(policy()).start()
    one = serve()
    one.open("x", SERVER["ipv4"], PORT)
    assert one.register("dns", "x").result == "ok"
    assert "no UdpReply=original" in one.control("VERB=prepare").message
    one.be_silent(True)
    with inside(remote.pid), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"?", (ADDRESS["ipv4"], PORT))
        one.waiting(1)
    assert links(broker) == []
    assert pins.written(broker.bpffs / "dispatch", "replies") == 0


def test_s5_what_explain_asks_is_not_noted(broker, serve):
    served(broker, serve)
    assert broker.ctl("explain", "udp", ADDRESS["ipv4"], str(PORT), "--from", "192.0.2.99:4000")[0] == 0
    assert pins.written(broker.bpffs / "dispatch", "replies") == 0


def test_s5_it_goes_with_the_unit(broker, serve, slice_):
    one = served(broker, serve)
    assert links(broker)
    one.kill()
    until("the links are gone", lambda: links(broker) == [] or slice_.remove(UNIT) if (slice_.path / UNIT).exists()
          else links(broker) == [])
    until("nothing is attached", lambda: str(slice_.path / UNIT) not in units.attached())
    again = serve()  # the next instance, in another cgroup of that name
    again.open("x", SERVER["ipv4"], PORT)
    assert again.register("dns", "x").result == "ok"
    assert links(broker) == pinned(slice_.path / UNIT)
    assert ask(ADDRESS["ipv4"]) == b"who"


def test_s5_a_unit_that_goes_while_no_broker_runs_is_found_at_the_next_start(broker, serve, slice_):
    one = served(broker, serve)
    broker.kill()
    assert ask(ADDRESS["ipv4"]) == b"who", "nobody needs the broker for answers"
    one.kill()
    slice_.remove(UNIT)
    broker.start()
    until("the links are gone", lambda: links(broker) == [])


def test_s5_it_goes_and_comes_with_policy(broker, serve, remote):
    served(broker, serve)

    def answered(there):
        with inside(remote.pid):
            return ask(ADDRESS["ipv4"], timeout=20 if there else 0.3)

    for text, there in ((policy(), False), (original(), True), (original(unit="other.service"), False)):
        broker.policy(text)
        assert broker.reload()[0] == 0
        assert bool(links(broker)) == there
        assert (answered(there) == b"who") == there
    broker.policy(original())
    assert broker.reload()[0] == 0
    assert links(broker) == []  # its socket was taken away


def test_s5_nothing_is_left_by_unload(broker, serve, slice_):
    served(broker, serve)
    assert broker.ctl("unload")[0] == 0
    assert os.listdir(broker.bpffs / "dispatch") == []
    until("nothing is attached", lambda: str(slice_.path / UNIT) not in units.attached())


def test_s5_a_restart_and_larger_maps_change_nothing(broker, serve, remote):
    one = served(broker, serve)
    before = links(broker)
    one.be_silent(True)
    with inside(remote.pid):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(20)
    sock.connect((ADDRESS["ipv4"], PORT))
    for sockets in (100, 3000):
        sock.send(b"?")
        one.waiting(1)
        broker.kill()
        (broker.config / "sockbrokerd.conf").write_text(f"[Broker]\nMaxSockets={sockets}\n")
        broker.start()
        one.answer_all()
        assert sock.recv(100) == b"?", "asked before, answered after"
    sock.close()
    assert links(broker) == before


def test_s5_an_upgrade_from_the_layout_before_leaves_the_programs_where_they_are(broker, serve, slice_):
    served(broker, serve)
    before = links(broker)
    broker.stop()
    earlier.remake(broker.bpffs / "dispatch", 7)
    broker.start()
    broker.wait_log("taken along from maps of layout 7")
    assert links(broker) == before
    assert units.attached()[str(slice_.path / UNIT)] == {"bind4", "bind6", "sendmsg4", "sendmsg6"}
    for address in addresses("ipv4", 3):
        assert ask(address) == b"who"


def test_s5_killed_at_any_point_nothing_is_left_and_nothing_lost(broker, serve, slice_):
    """While a unit is given the programs, and while policy takes them away."""
    points = faults.FaultPoints()
    broker.environment = points.environment
    add_routes()
    broker.policy(original() + original(name="ntp", unit="ntp.service", port=123)).start()
    one = serve()
    one.open("x", SERVER["ipv4"], PORT)

    def register():
        try:
            return one.register("dns", "x").result == "ok"
        except (ConnectionError, EOFError, OSError):
            return False

    number = 0
    while True:
        number += 1 if "SOCKBROKER_LONG" in os.environ else 5
        points.arm(number)
        done = register()
        passed = points.disarm()
        if len(passed) < number:
            assert done
            break
        broker.process.wait(25)
        broker.start()
        assert links(broker) in ([], pinned(slice_.path / UNIT)), passed
        if broker.list():
            assert ask(ADDRESS["ipv4"]) == b"who", passed
        broker.ask("VERB=unregister\nFDNAME=dns")
        broker.policy(original(name="ntp", unit="ntp.service", port=123))
        assert broker.reload()[0] == 0
        assert links(broker) == []
        broker.policy(original() + original(name="ntp", unit="ntp.service", port=123))
        assert broker.reload()[0] == 0
    assert sum("cgroup_" in point for point in passed) >= 4, passed
    assert ask(ADDRESS["ipv4"]) == b"who"
