# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows S13 and S14 of the talk: the traffic benchmark delivers what it counts, and a SYN flood does not meet at the
listener. Nothing here is timed: tests/bench measures, this shows that what it measures is true."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))

from traffic import pair, variants  # noqa: E402

# A burst fits into the queue between device and stack (net.core.netdev_max_backlog, 1000 by default), so none is lost.
BURSTS, DATAGRAMS, CONNECTIONS = 4, 500, 300
OURS, TPROXY = f"ours {variants.MANY}", "tproxy"


def _show(protocol, family, sent):
    print(f"{protocol} over IPv{family}: {sent['done'] / sent['seconds']:,.0f}/s, "
          f"{sent['cpu_seconds'] / sent['done'] * 1e6:.1f} us of the sender's processor each")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", variants.ALL)
def test_s13_every_datagram_reaches_the_right_socket(name, family):
    with pair.Pair(name, "udp", family, decoy=True) as both:
        for _ in range(BURSTS):
            sent, got = both.traffic(seconds=20, most=DATAGRAMS)
            assert sent["done"] == DATAGRAMS and sent["failed"] == 0, sent
            assert got["done"] == DATAGRAMS, f"{both.server.astray()} came to the decoy"
        assert both.server.astray() == both.server.dropped() == 0
        if variants.base(name) == "ours":
            assert both.server.lookups() == BURSTS * DATAGRAMS
        _show("udp", family, sent)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", variants.ALL)
def test_s13_every_connection_reaches_the_right_listener(name, family):
    with pair.Pair(name, "tcp", family, decoy=True) as both:
        sent, got = both.traffic(seconds=20, most=CONNECTIONS)
        assert sent["done"] == CONNECTIONS and sent["failed"] == 0, sent
        assert got["done"] == CONNECTIONS, got
        assert both.server.astray() == 0
        _show("tcp", family, sent)


@pytest.mark.parametrize("cookies", [1, 2])
@pytest.mark.parametrize("name", ["bind", TPROXY, OURS])
def test_s14_clients_go_on_connecting_during_a_syn_flood(name, cookies):
    with pair.Pair(name, "tcp", 4, decoy=True, flooders=2) as both:
        both.server.sysctl("net/ipv4/tcp_syncookies", cookies)
        before = both.server.counters()
        floods = [pair.Call(flooder, "flood", 1.0) for flooder in both.flooders]
        sent, got = both.traffic(seconds=20, most=CONNECTIONS)
        syns = sum(call.result()["done"] for call in floods)
        after = both.server.counters()
        answered = after["Tcp.OutSegs"] - before["Tcp.OutSegs"]
        assert sent["done"] == CONNECTIONS and sent["failed"] == 0, sent
        assert got["done"] == CONNECTIONS, got
        assert both.server.astray() == 0
        # There was a flood, and it was answered with cookies rather than with memory.
        assert after["TcpExt.SyncookiesSent"] - before["TcpExt.SyncookiesSent"] > CONNECTIONS
        print(f"{name}: {syns} SYNs, {answered} segments answered, {sent['done'] / sent['seconds']:,.0f} "
              "real connections a second meanwhile")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor nobody sees a SYN being dealt with")
def test_s14_a_syn_does_not_write_to_the_listener_where_tproxy_does():
    """TPROXY takes a reference on the listener for each SYN and drops it again: two atomic writes to one cache line
    that every processor needs. sk_lookup finds a listener under RCU and leaves its count alone, as bind() does.
    With cookies no request holds the listener either, so whatever moves the count is the lookup."""
    seen = {}
    for name in ("bind", TPROXY, OURS):
        with pair.Pair(name, "tcp", 4, flooders=2) as both:
            both.server.sysctl("net/ipv4/tcp_syncookies", 2)
            at_rest = both.server.references()
            for _ in range(5):  # on a busy machine few looks fall into the microseconds of a SYN
                floods = [pair.Call(flooder, "flood", 1.0) for flooder in both.flooders]
                seen[name] = both.server.watch_references(0.9)
                syns = sum(call.result()["done"] for call in floods)
                print(f"{name}: {at_rest} at rest, during {syns} SYNs {seen[name]}")
                assert syns > 1000
                if name != TPROXY or len(seen[name]) > 1:
                    break
            assert min(seen[name]) == at_rest
    assert len(seen["bind"]) == 1
    assert len(seen[OURS]) == 1, "the count moves with the SYNs"
    assert len(seen[TPROXY]) > 1, "TPROXY no longer counts: the row has lost its contrast"
