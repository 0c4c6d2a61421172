# SPDX-License-Identifier: LGPL-2.1-or-later
"""What sockbroker-routes takes from its socket: whoever has that, a broker that was taken over, can do no more than
this."""

import contextlib
import os
import signal

import pytest

from harness import namespace, routes
from harness.routes import ANNOUNCE, LOCAL, Talk, record
from harness.until import until

GOOD = "198.51.100.0/24"


def everything():
    return "".join(namespace.run("ip", family, "route", "show", "table", "all") for family in ("-4", "-6"))


@pytest.mark.parametrize("prefix",
                         ["0.0.0.0/0", "0.0.0.0/7", "128.0.0.0/1", "127.0.0.0/8", "127.1.2.3/32", "224.0.0.0/8",
                                    "255.255.255.255/32", "::/0", "2000::/3", "2000::/15", "::1/128", "::/16",
                                    "::ffff:0:0/96", "fe80::/16", "fe80::1/128", "ff02::/16"])
@pytest.mark.parametrize("kind", [LOCAL, ANNOUNCE])
def test_no_route_is_made_that_would_cut_the_machine_off(talk, kind, prefix):
    before = everything()
    report = talk.tell(kind, [prefix])
    assert (report["standing"], report["refused"], report["reason"]) == (0, 1, 1)
    assert everything() == before
    assert talk.tell(kind, [GOOD], 2)["standing"] == 1, "it goes on"


def test_a_network_that_an_interface_is_connected_to_is_refused_with_all_that_cover_it(talk):
    namespace.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "away")
    for address in ("192.0.2.9/24", "10.0.0.1 peer 10.9.9.9/32", "fd01::9/64"):
        namespace.run("ip", "addr", "add", *address.split(), "dev", "lan")
    namespace.run("ip", "link", "set", "lan", "up")
    before = everything()
    for number, prefix in enumerate(("192.0.2.0/24", "192.0.0.0/16", "192.0.0.0/8", "10.9.9.9/32", "10.0.0.0/8",
                                     "fd01::/64", "fd01::/16")):
        report = talk.tell(LOCAL, [prefix], number + 1)
        assert (report["standing"], report["refused"], report["reason"]) == (0, 1, 2), prefix
    assert everything() == before
    assert talk.tell(LOCAL, ["192.0.2.7/32", "fd01::7/128"], 20)["standing"] == 2, "within it is what AnyIP is for"


def test_routes_of_others_are_never_removed(talk):
    namespace.run("ip", "route", "add", "blackhole", "198.51.100.0/24", "table", "153")
    namespace.run("ip", "route", "add", "blackhole", "203.0.113.0/24", "table", "153", "proto", "bird")
    namespace.run("ip", "-6", "route", "add", "blackhole", "2001:db8::/32", "table", "153", "proto", "static")
    namespace.add_local_routes("198.51.100.0/24")
    before = everything()
    for number, prefixes in enumerate((["198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"], [])):
        for kind in (LOCAL, ANNOUNCE):
            talk.tell(kind, prefixes, number + 1)
    assert everything() == before


@pytest.mark.parametrize("words", [
    b"", b"x", bytes(12), record(1, 0, magic=1), record(0, 0), record(4, 0), record(1, 2), record(1, 255),
    record(2, 0, [GOOD]), record(3, 0), record(1, 0) + b"x", record(1, 0, count=1), record(2, 0, [GOOD], count=2),
    record(2, 0, [b"\2" + routes.wire_prefix(GOOD)[1:]]), record(2, 0, [b"\0\41" + bytes(16)]),
    record(2, 0, [b"\0\30" + bytes([198, 51, 100, 1]) + bytes(12)]),
    record(2, 0, [b"\0\30" + bytes([198, 51, 100, 0]) + b"\1" * 12]), bytes(65537), record(2, 0, count=65535)],
    ids=range(19))
def test_what_is_no_word_ends_the_connection_and_changes_nothing(broker, maker, words):
    del broker
    maker.start()
    before = everything()
    sock = Talk(maker.path)
    with contextlib.suppress(OSError):
        sock.send(words)
    if words == b"":  # nothing arrives of it but a record without a byte, which is an end
        sock.close()
    else:
        assert sock.hung_up()
    assert everything() == before
    assert Talk(maker.path).tell(LOCAL, [GOOD])["standing"] == 1, "it goes on"


@pytest.mark.parametrize("records", [
    [record(1, 0), record(2, 0, ["198.51.100.0/24", "198.51.100.0/24"])],
    [record(1, 0), record(2, 0, ["203.0.113.0/24", "198.51.100.0/24"])],
    [record(1, 0), record(2, 0, ["203.0.113.0/24"]), record(2, 0, ["198.51.100.0/24"])],
    [record(1, 0), record(2, 1, [GOOD])], [record(1, 0), record(3, 1)],
    [record(1, 0), record(2, 0, [GOOD]), record(2, 1, [GOOD])]], ids=range(6))
def test_lists_out_of_order_end_the_connection_and_change_nothing(talk, records):
    before = everything()
    for one in records:
        talk.send(one)
    assert talk.hung_up() and everything() == before


def test_a_list_that_is_cut_short_counts_for_nothing(talk, maker):
    talk.send(record(1, 0))
    talk.send(record(2, 0, [GOOD]))
    talk.close()
    again = Talk(maker.path)
    assert again.tell(ANNOUNCE, [GOOD])["standing"] == 1
    assert routes.local() == set()


def test_nobody_but_the_owner_of_the_socket_may_speak(broker, maker, spawn):
    del broker
    maker.start()
    assert os.stat(maker.path).st_mode & 0o777 == 0o600
    with pytest.raises(Exception, match="Permission denied"):
        spawn("web", 61001).connect_unix(maker.path)


def test_it_has_one_capability_and_its_filter_is_on(maker, broker):
    del broker
    maker.start()
    until("it has given up the rest", lambda: "Seccomp:\t2" in open(f"/proc/{maker.process.pid}/status",
                                                                    encoding="ascii").read())
    with open(f"/proc/{maker.process.pid}/status", encoding="ascii") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    net_admin = f"{1 << 12:016x}"
    assert (fields["CapPrm"], fields["CapEff"], fields["CapInh"], fields["CapAmb"]) == (
        net_admin, net_admin, "0" * 16, "0" * 16)
    assert fields["NoNewPrivs"] == "1"
    maker.process.send_signal(signal.SIGTERM)
    assert maker.process.wait(25) == -signal.SIGTERM
