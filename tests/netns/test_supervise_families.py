# SPDX-License-Identifier: LGPL-2.1-or-later
"""Under sockbroker-run --supervise: sockets of IPv6 that take IPv4, alone or too, and what becomes of each family."""

import pytest

from harness import sandbox, supervised
from supervising import UID, ask, everything, send
from test_supervise_habits import LISTEN_IN_A_CHILD
from words import PREFIXES, add_routes, listen, refused, section

MAPPED = "s = sock('tcp', '::ffff:192.0.2.7', 80, 0); serve(s, 'four')"
IPV6 = "t = sock('tcp', '2001:db8::7', 80); serve(t, 'six')"


@pytest.mark.parametrize("handover", ["replace", "refuse"])
@pytest.mark.parametrize("codes", [[MAPPED, IPV6], [IPV6, MAPPED]], ids=["first", "last"])
def test_a_bind_at_a_v4_mapped_address_takes_no_ipv6(broker, handover, codes):
    """As a Java server binds an IPv4 address."""
    add_routes()
    broker.policy(everything("web", f"Handover={handover}")).start()
    sandbox.install()
    with supervised.Program() as program:
        for code in codes:
            assert program.do(code) is None
        for _ in range(2):
            assert ask("192.0.2.7", 80).startswith("four ") and ask("2001:db8::7", 80).startswith("six ")
            program.do(LISTEN_IN_A_CHILD)
            assert program.do("names['heard']") == 0
        program.do("t.shutdown(socket.SHUT_RD)")
        with refused():
            ask("2001:db8::7", 80)


def test_a_udp_bind_that_the_second_of_two_services_refuses_leaves_nothing_at_the_first(broker):
    add_routes()
    broker.policy(section("four", UID, listen("udp", PREFIXES["ipv4"], 5353), "Handover=share", "MaxSockets=1")
                  + section("six", UID, listen("udp", PREFIXES["ipv6"], 5353))).start()
    sandbox.install()
    with supervised.Program() as first, supervised.Program() as second:
        first.do("s = sock('udp', '0.0.0.0', 5353)")
        second.do("t = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)")
        for _ in range(2):
            assert second.do("t.bind(('::', 5353))") == "ENOBUFS"
            supervised.until(lambda: [entry["pid"] for entry in broker.list()] == [first.process.pid])
        first.do("s.close()")
        supervised.until(lambda: second.do("t.bind(('::', 5353))") is None)
        assert {(entry["service"], entry["pid"]) for entry in broker.list()} == {
            (name, second.process.pid) for name in ("four", "six")}
        for address in ("192.0.2.1", "2001:db8::1"):
            send(address, 5353, f"to {address}")
            assert second.do("received(t)") == f"to {address}"
