# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S15 of the talk: `sockbrokerctl explain` says where a packet goes, why, and where that is written; and what it
says is what packets do."""

import ipaddress
import json
import os
import random
import socket
import subprocess

import pytest

from harness import broker as broker_module
from harness import client, kernel, namespace
from words import (ADDRESS, PORT, PREFIXES, add_routes, each_family, each_protocol, everywhere, handed_over, listen,
                   section)


@pytest.fixture(name="explain")
def _explain(broker):
    """explain(protocol, address, port, *options): the object of the verb."""

    def explain(protocol, address, port, *options):
        status, text = broker.ctl("explain", protocol, address, str(port), "--json=short", "--bpffs", str(broker.bpffs),
                                  *options)
        assert status == 0, text
        return json.loads(text)

    return explain


def serve(broker, text):
    add_routes()
    broker.policy(text).start()


@each_protocol
@each_family
def test_s15_a_socket_with_its_binding_owner_and_cookie(broker, spawn, explain, protocol, family):
    serve(broker, section("web", 61001, everywhere()))
    cookie = handed_over(spawn("web", 61001), protocol, family)
    row = explain(protocol, ADDRESS[family], PORT)
    lines = everywhere().splitlines()
    expected = listen(protocol, PREFIXES[family]).strip()
    assert row["verdict"] == "socket" and row["service"] == "web" and row["cookie"] == cookie
    assert row["binding"] == {
        "service": "web", "protocol": protocol, "prefix": PREFIXES[family], "ports": str(PORT), "source": None,
        "interface": None, "when_absent": "refuse", "file": str(broker.config / "conf.d/50-test.conf"),
        "line": 3 + lines.index(expected)}
    assert row["socket"]["cookie"] == cookie and row["socket"]["uid"] == 61001 and row["socket"]["state"] == "live"
    assert list(row)[:5] == ["verdict", "service", "binding", "cookie", "reason"]


def test_s15_it_changes_nothing_and_counts_nothing(broker, spawn, explain):
    serve(broker, section("web", 61001, everywhere(), "Accounting=binding"))
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    before = broker.snapshot(), broker.status()[1]
    explain("tcp", ADDRESS["ipv4"], PORT)
    explain("udp", ADDRESS["ipv4"], PORT)
    assert (broker.snapshot(), broker.status()[1]) == before


def test_s15_no_privilege_is_needed(broker, spawn):
    serve(broker, section("web", 61001, everywhere()))
    handed_over(spawn("web", 61001), "tcp", "ipv4")

    def nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    with open(broker_module.BUILD / "sockbrokerctl", "rb") as program:
        done = subprocess.run([f"/proc/self/fd/{program.fileno()}", "--runtime-dir", str(broker.runtime), "explain",
                               "tcp", ADDRESS["ipv4"], str(PORT)],
                              pass_fds=[program.fileno()], preexec_fn=nobody, capture_output=True, text=True,
                              timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert f"tcp {ADDRESS['ipv4']}:{PORT}: socket\n" in done.stdout
    assert "50-test.conf:3 (tcp 192.0.2.0/24 port 7000)" in done.stdout
    assert "no unit" in done.stdout and "uid 61001" in done.stdout


def test_s15_an_address_without_a_local_route_is_not_local(broker, spawn, explain):
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    row = explain("tcp", ADDRESS["ipv4"], PORT)
    assert row["verdict"] == "not-local" and row["cookie"] is None and row["service"] == "web"
    assert "ip route add local 192.0.2.0/24 dev lo" in row["reason"] and "web serves" in row["reason"]
    namespace.add_local_routes(PREFIXES["ipv4"])
    assert explain("tcp", ADDRESS["ipv4"], PORT)["verdict"] == "socket"
    assert "never comes to dispatch, it is multicast" in explain("udp", "239.1.2.3", PORT)["reason"]


def test_s15_other_programs_are_named_in_their_order(broker, spawn, explain, neighbours):
    add_routes()
    neighbours.attach("other_pass")
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    neighbours.attach("other_drop")
    notes = explain("tcp", ADDRESS["ipv4"], PORT)["notes"]
    assert len(notes) == 2
    assert "other_pass" in notes[0] and "before this one and decides where this one passes" in notes[0]
    assert "other_drop" in notes[1] and "after this one and has the last word" in notes[1]


def test_s15_a_client_of_sources_and_interfaces_is_told(broker, spawn, explain):
    text = (section("near", 61001, everywhere(), "Source=203.0.113.0/24 2001:db8:77::/48") +
            section("inner", 61002, everywhere("7000-7001"), "Interface=lo") + section("all", 61003, everywhere("*")))
    serve(broker, text)
    for number, name in enumerate(("near", "inner", "all")):
        handed_over(spawn(name, 61001 + number), "tcp", "ipv4")
    assert explain("tcp", ADDRESS["ipv4"], PORT, "--from", "203.0.113.9:1024")["service"] == "near"
    row = explain("tcp", ADDRESS["ipv4"], PORT)
    assert row["service"] == "all" and [note.split(": ")[-1] for note in row["notes"]] == ["say --from",
                                                                                         "say --interface"]
    row = explain("tcp", ADDRESS["ipv4"], PORT, "--from", "198.51.100.1:9", "--interface", "lo")
    assert row["service"] == "inner" and row["notes"] == [] and [one["service"] for one in row["next"]] == ["all"]
    assert explain("tcp", ADDRESS["ipv4"], PORT, "--interface", "other")["service"] == "all"


@each_protocol
@each_family
def test_s15_without_a_client_no_source_matches_not_even_one_that_holds_the_address_of_zeros(
        broker, spawn, explain, protocol, family):
    """A canary for one half of all clients: the address that stands for none, 0.0.0.0 or ::, lies in that half."""
    serve(broker, section("half", 61001, everywhere(), "Source=0.0.0.0/1 ::/1") +
          section("all", 61002, everywhere("*"), "Source=0.0.0.0/0 ::/0"))
    for number, name in enumerate(("half", "all")):
        handed_over(spawn(name, 61001 + number), protocol, family, port=PORT + number)
    row = explain(protocol, ADDRESS[family], PORT)
    assert (row["service"], row["binding"]["service"], row["reason"]) == ("all", "all", "all serves")
    assert [note.split(": ")[-1] for note in row["notes"]] == ["say --from"]
    near = {"ipv4": "10.0.0.1:9", "ipv6": "[2001:db8::1]:9"}[family]
    assert explain(protocol, ADDRESS[family], PORT, "--from", near)["service"] == "half"


def test_s15_an_interface_that_is_not_there_is_noted(broker, explain):
    serve(broker, section("inner", 61002, everywhere("7000-7001"), "Interface=lo"))
    row = explain("tcp", ADDRESS["ipv4"], PORT, "--interface", "eht0")
    assert row["notes"][-1] == "there is no interface eht0 here, so that no Interface= matched"
    assert "there is no interface" not in str(explain("tcp", ADDRESS["ipv4"], PORT, "--interface", "lo")["notes"])


def test_s15_lines_of_a_policy_that_is_not_the_one_on_disk_are_noted(broker, explain):
    serve(broker, section("web", 61001, everywhere()))
    assert "on disk" not in str(explain("tcp", ADDRESS["ipv4"], PORT)["notes"])
    broker.policy("nonsense\n")
    assert broker.reload()[0] == 1
    row = explain("tcp", ADDRESS["ipv4"], PORT)
    assert row["binding"]["line"] == 3 and "which is not the one on disk, see status" in row["notes"][-1]


def test_s15_of_very_many_bindings_the_one_that_decides_is_named(broker, spawn, explain):
    """70 nested prefixes, the first 69 without a socket."""
    asked = ipaddress.ip_address("2001:db8:1234:5678:9abc:def0:1234:5679")
    nested = [ipaddress.ip_network((asked, 128 - number), strict=False) for number in range(70)]
    serve(broker, "".join(section(f"n{number}", 61001, f"ListenStream=[{prefix.network_address}]/{prefix.prefixlen}:80",
                                  "WhenAbsent=next") for number, prefix in enumerate(nested)))
    namespace.add_local_routes(str(nested[-1]))
    row = explain("tcp", str(asked), 80)
    assert (row["verdict"], row["service"], row["next"]) == ("pass", "n69", [])
    assert row["reason"].endswith("n69 has no socket: the next binding decides (WhenAbsent=next); there is none, so "
                                  "the ordinary lookup decides")
    cookie = handed_over(spawn("last", 61001), "tcp", "ipv6", service="n69")
    row = explain("tcp", str(asked), 80)
    assert (row["verdict"], row["service"], row["cookie"]) == ("socket", "n69", cookie)
    assert row["binding"]["prefix"] == str(nested[-1]) and row["socket"]["cookie"] == cookie
    assert "n62 has no socket: the next binding decides (WhenAbsent=next); 6 bindings more pass it on; n69" in row[
        "reason"]
    handed_over(spawn("first", 61001), "tcp", "ipv6", service="n64")
    row = explain("tcp", str(asked), 80)
    assert row["service"] == "n64" and [one["service"] for one in row["next"]] == [f"n{65 + i}" for i in range(5)]


def test_s15_absent_services_and_what_follows(broker, spawn, explain):
    text = (section("canary", 61001, everywhere(), "WhenAbsent=next") +
            section("web", 61002, everywhere("7000-7001"), "WhenAbsent=pass") +
            section("all", 61003, everywhere("*")))
    serve(broker, text)
    row = explain("tcp", ADDRESS["ipv4"], PORT)
    assert (row["verdict"], row["service"]) == ("pass", "web")
    assert row["reason"] == ("canary has no socket: the next binding decides (WhenAbsent=next); "
                             "web has no socket: the ordinary lookup decides (WhenAbsent=pass)")
    assert [one["service"] for one in row["next"]] == ["all"]
    row = explain("tcp", ADDRESS["ipv4"], PORT + 5)
    assert (row["verdict"], row["service"]) == ("refused", "all")
    canary = spawn("canary", 61001)
    handed_over(canary, "udp", "ipv4")
    row = explain("tcp", ADDRESS["ipv4"], PORT)
    assert "canary has no live socket for tcp and ipv4, of 1 in all" in row["reason"]
    assert explain("tcp", "10.1.2.3", PORT)["verdict"] == "not-local"
    assert explain("tcp", "127.0.0.1", 9)["reason"] == "no binding covers it, the ordinary lookup decides"


def test_s15_a_held_socket_says_that_clients_wait(broker, spawn, explain):
    serve(broker, section("web", 61001, everywhere(), "HoldSec=1min"))
    one = spawn("web", 61001)
    cookie = handed_over(one, "tcp", "ipv4")
    one.kill()
    deadline_row = None
    while deadline_row is None or deadline_row["socket"]["state"] != "held":
        deadline_row = explain("tcp", ADDRESS["ipv4"], PORT)
    assert deadline_row["cookie"] == cookie and "held for the next instance" in deadline_row["reason"]


def test_s15_mistakes_of_the_command_line_say_what_was_meant(broker):
    broker.policy("").start()
    for arguments, words in {
            ("sctp", "1.0.0.1", "80"): "write tcp or udp", ("tcp", "0.0.0.0", "80"): "no packet has",
            ("tcp", "1.0.0.1/24", "80"): "is no address", ("tcp", "1.0.0.1", "0"): "no port from 1",
            ("tcp", "1.0.0.1", "80", "--from", "1.2.3.4"): "--from",
            ("tcp", "1.0.0.1", "80", "--from", "[::1]:4"): "another family",
            ("tcp", "1.0.0.1"): "too few arguments"}.items():
        status, text = broker.ctl("explain", *arguments)
        assert status == 2 and words in text, (arguments, text)


def by_tcp(sock, where):
    sock.connect(where)
    return sock.recv(4096).decode().split()[0]


def by_udp(sock, where):
    """Not connected: the answer comes from the port that the service is bound to, whatever was asked."""
    sock.setsockopt(*((socket.IPPROTO_IPV6, kernel.IPV6_RECVERR) if ":" in where[0] else
                      (socket.IPPROTO_IP, kernel.IP_RECVERR)), 1)
    sock.sendto(b"who\n", where)
    return sock.recv(4096).decode().split()[0]


STATES = ("serves", "shares", "absent", "closed", "draining")


def test_s15_explain_equals_what_packets_do(broker, spawn, explain):
    """Random policies through the whole broker; real clients of the host. The test of the kernel's part alone,
    dataplane_test, does it for many more."""
    rounds, packets = (40, 60) if os.environ.get("SOCKBROKER_LONG") else (2, 40)
    dice = random.Random(16)
    namespace.add_local_routes("10.9.0.0/16", "fd09::/64")
    broker.policy("").start()
    seen = set()
    for number in range(rounds):
        names = [f"s{number}-{index}" for index in range(6)]
        text = ""
        for index, name in enumerate(names):
            lines = ["WhenAbsent=" + dice.choice(("refuse", "pass", "next"))]
            state = STATES[index % len(STATES)]
            lines.append("Handover=" + ("share" if state == "shares" else "replace"))
            for _ in range(4):
                prefix = dice.choice(("10.9.0.0/16", "10.9.1.0/24", f"10.9.1.{dice.randrange(3)}/32", "fd09::/64",
                                      f"fd09::{dice.randrange(3)}/128"))
                lines.append(listen(dice.choice(("tcp", "udp")), prefix, f"{7000 + index * 3}-{7000 + index * 3 + 2}"))
            text += section(name, 61001 + index, *dict.fromkeys(lines))
        broker.policy(text)
        status, told = broker.reload()
        assert status == 0, told
        children = {}
        for index, name in enumerate(names):
            state = STATES[index % len(STATES)]
            if state == "absent":
                continue
            child = children[name] = spawn(name, 61001 + index)
            for label in ("one", "two") if state in ("shares", "draining") else ("one",):
                for protocol in ("tcp", "udp"):
                    child.open(f"{label}-{protocol}", protocol, "::ffff:127.0.0.1", 0, dual=True)
                    reply = child.register(f"{label}-{protocol}", service=name)
                    assert reply.result in ("ok", "wrong-socket"), reply
            if state == "closed":
                child.kill()
        for _ in range(packets):
            protocol = dice.choice(("tcp", "udp"))
            family, address = dice.choice((("ipv4", f"10.9.1.{1 + dice.randrange(3)}"), ("ipv6", "fd09::1"),
                                           ("ipv6", "fd09::2")))
            port = 7000 + dice.randrange(20)
            with socket.socket(client.family_of(address), socket.SOCK_STREAM if protocol == "tcp" else
                               socket.SOCK_DGRAM) as sock:
                sock.settimeout(20)
                sock.bind(("127.0.0.1" if family == "ipv4" else "::1", 0))
                source = sock.getsockname()
                row = explain(protocol, address, port, "--interface", "lo", "--from",
                              f"{source[0]}:{source[1]}" if family == "ipv4" else f"[{source[0]}]:{source[1]}")
                try:
                    answer = (by_tcp if protocol == "tcp" else by_udp)(sock, (address, port))
                except ConnectionRefusedError:
                    answer = None
            seen.add(row["verdict"])
            if row["verdict"] == "socket":
                assert answer == row["service"] and row["binding"] is not None, (row, answer)
            else:  # nobody stands where dispatch passes
                assert answer is None, (row, answer)
        for child in children.values():
            child.kill()
    assert seen == {"socket", "refused", "pass"}
