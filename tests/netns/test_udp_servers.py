# SPDX-License-Identifier: LGPL-2.1-or-later
"""UdpReply=original, row S5, for servers that know nothing of the broker, under sockbroker-run --supervise: a plain one
in C, and stock name servers. No privilege, and no .socket unit."""

import socket

import pytest

from harness import broker as broker_module
from harness import client, namespace, sandbox, servers, supervised, units
from harness.until import until
from test_unmodified import ADDRESSES, Running, ask as ask_server, binding, serving
from test_udp_replies import UID, UNIT, addresses, original, section
from waiting import inside
from words import PORT, add_routes, each_family

TOGETHER = 8  # datagrams in one call


@each_family
@pytest.mark.parametrize("calls", ["one by one", "many at once"])
def test_s5_a_plain_server_in_c(broker, remote, slice_, family, calls):
    """recvfrom(2) and sendto(2), or recvmmsg(2) and one sendmmsg(2) for clients that asked different addresses."""
    add_routes()
    broker.policy(original()).start()
    [program] = sandbox.install(broker_module.BUILD / "tests/netns/udp_server")
    words = [program, family[-1], PORT, *([TOGETHER] if calls == "many at once" else [])]
    process = supervised.start(*words, uid=UID, before=units.command_in(slice_.unit(UNIT)))
    try:
        until("it serves", lambda: [row["state"] for row in broker.list()] == ["live"])
        with inside(remote.pid):
            asking = {address: socket.socket(client.family_of(address), socket.SOCK_DGRAM)
                      for address in addresses(family, TOGETHER)}
            for address, sock in asking.items():
                sock.settimeout(20)
                sock.connect((address, PORT))
                sock.send(address.encode())
            for address, sock in asking.items():
                assert sock.recv(100) == address.encode()
                sock.close()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("server", [server for server in servers.SERVERS if server.protocol == "dns"],
                         ids=lambda server: server.name)
def test_s5_a_stock_name_server_with_no_privilege_and_no_socket_unit(broker, remote, slice_, server):
    """UDP and TCP port 53 of two prefixes, both families. Those that are installed, with SOCKBROKER_LONG all."""
    add_routes()
    if server.local:
        for address in (address for family in ADDRESSES.values() for address in family):
            namespace.run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    broker.policy(section("it", UNIT, binding("tcp", server.port), binding("udp", server.port),
                          "UdpReply=original")).start()
    sandbox.install()
    running = Running(server, [], slice_.unit(UNIT))
    try:
        until(f"it to serve: {running.said()}", lambda: len(serving(broker)) == len(server.offers()) or
              running.process.poll() is not None)
        assert running.process.poll() is None, running.said()
        for protocol, family in server.offers():  # it listens before it knows all that it has to say
            until("the first answer", lambda p=protocol, f=family: ask_server(
                remote, p, ADDRESSES[f][0], server) == "yes" or running.process.poll() is not None)
        found = {(protocol, family): {ask_server(remote, protocol, address, server) for address in ADDRESSES[family]}
                 for protocol, family in server.offers()}
        assert set(map(tuple, found.values())) == {("yes",)}, (found, running.said())
    finally:
        running.end()
