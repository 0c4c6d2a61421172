# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S15 of the talk: what happens, and why, is easy to find out. A table of configurations, more than twenty of them
wrong in a way of their own: each time `explain` or `verify` names the cause, and the file and line where it stands."""

import json
import socket

import pytest

from harness import namespace
from words import PORT, add_routes, handed_over

FILE = "50-test.conf"
WEB = "[Service web]\nUser=61001\n"
OTHER = "[Service other]\nUser=61002\n"
TCP = f"ListenStream=192.0.2.0/24:{PORT}\n"
HOST = namespace.HOST4

# Name: policy, line, words of the cause. `verify` finds it in the text, or in what this host is.
WRONG_FOR_VERIFY = {
    "a key that does not exist": (WEB + "ListenSteam=192.0.2.0/24:80\n", 3, "unknown key ListenSteam="),
    "host bits": (WEB + "ListenStream=192.0.2.7/24:80\n", 3, "write 192.0.2.0/24"),
    "port 0": (WEB + "ListenStream=192.0.2.0/24:0\n", 3, "port"),
    "ports backwards": (WEB + "ListenStream=192.0.2.0/24:90-80\n", 3, "90-80"),
    "the address that no packet has": (WEB + "ListenStream=0.0.0.0:443\n", 3, "443"),
    "multicast": (WEB + "ListenDatagram=224.0.0.1:80\n", 3, "multicast"),
    "the client that no packet has": (WEB + TCP + "Source=0.0.0.0\n", 4, "0.0.0.0/0"),
    "clients of multicast": (WEB + TCP + "Source=224.0.0.0/4\n", 4, "multicast"),
    "IPv6 without brackets": (WEB + "ListenStream=2001:db8::/64:80\n", 3, "in brackets"),
    "a v4-mapped prefix": (WEB + "ListenStream=[::ffff:192.0.2.0]/120:80\n", 3, "v4-mapped"),
    "ranges that overlap": (WEB + "ListenStream=192.0.2.0/24:80-90\n" + OTHER + "ListenStream=192.0.2.0/24:85-99\n", 6,
                            f"{FILE}:3"),
    "a binding of two services": (WEB + TCP + OTHER + TCP, 6, f"{FILE}:3"),
    "a line that is indented": (WEB + " ListenStream=192.0.2.0/24:80\n", 3, "column one"),
    "a word that is no value": (WEB + TCP + "WhenAbsent=drop\n", 4, "refuse"),
    "a span that is none": (WEB + TCP + "HoldSec=soon\n", 4, "HoldSec="),
    "no section": ("User=61001\n", 1, "section"),
    "a user that is not there": ("[Service web]\nUser=nobody-of-that-name\n" + TCP, 2, "nobody-of-that-name"),
    "an interface that is not there": (WEB + TCP + "Interface=ghost0\n", 4, "ghost0 does not exist"),
    "nobody may register": ("[Service web]\n" + TCP, 1, "web"),
    "nothing to receive": (WEB, 1, "web"),
    "a family without clients": (WEB + TCP + "ListenStream=[2001:db8::]/64:80\nSource=10.0.0.0/8\n", 4, "IPv6"),
    "a binding that stands twice": (WEB + TCP + TCP, 4, f"{FILE}:3"),
    "a listener of this host": (WEB + f"ListenStream={HOST}:8080\n", 3, f"listens on tcp {HOST}:8080"),
    "a prefix without a route": (WEB + "ListenStream=203.0.113.0/24:80\n", 3, "no address of 203.0.113.0/24 is local"),
    "the ports of this host's clients": (WEB + f"ListenDatagram={HOST}:*\n", 3, "its own clients ask from ports"),
}

# Name: policy, what is asked, verdict, service, line of the binding that decides, words of the answer.
WRONG_FOR_EXPLAIN = {
    "nobody has registered": (WEB + TCP, ["tcp", "192.0.2.7", PORT], "refused", "web", 3, "has no socket"),
    "nobody has, and the lookup goes on": (WEB + TCP + "WhenAbsent=pass\n", ["tcp", "192.0.2.7", PORT], "pass", "web",
                                            3, "ordinary lookup"),
    "another service is more specific": (WEB + TCP + OTHER + f"ListenStream=192.0.2.7:{PORT}\n",
                                         ["tcp", "192.0.2.7", PORT], "refused", "other", 6, f"{FILE}:3"),
    "the canary is away": (OTHER + f"ListenStream=192.0.2.7:{PORT}\nWhenAbsent=next\n" + WEB + TCP,
                           ["tcp", "192.0.2.7", PORT], "refused", "web", 7, "WhenAbsent=next"),
    "another protocol": (WEB + TCP, ["udp", "192.0.2.7", PORT], "pass", None, None, "no binding covers it"),
    "another port": (WEB + TCP, ["tcp", "192.0.2.7", 81], "pass", None, None, "no binding covers it"),
    "another family": (WEB + f"ListenStream=0.0.0.0/0:{PORT}\n", ["tcp", "2001:db8::7", PORT], "pass", None, None,
                       "no binding covers it"),
    "a client that Source= leaves out": (WEB + TCP + "Source=10.0.0.0/8\n",
                                         ["tcp", "192.0.2.7", PORT, "--from=172.16.0.1:9"], "pass", None, None,
                                         "no binding"),
    "an interface that is not named": (WEB + TCP + "Interface=host\n", ["tcp", "192.0.2.7", PORT, "--interface=lo"],
                                       "pass", None, None, "no binding"),
    "no route": (WEB + "ListenStream=203.0.113.0/24:80\n", ["tcp", "203.0.113.7", 80], "not-local", "web", 3,
                 "is no local address"),
}

# The same, where the service has a socket of TCP over IPv4 and all is well.
GOOD = {
    "a prefix and a port": (TCP, ["tcp", "192.0.2.7", PORT], 3),
    "any port": ("ListenStream=192.0.2.0/24:*\n", ["tcp", "192.0.2.7", 1], 3),
    "a range": ("ListenStream=192.0.2.0/24:7000-7999\n", ["tcp", "192.0.2.255", 7999], 3),
    "a port of both families": (f"ListenStream={PORT}\n", ["tcp", "192.0.2.7", PORT], 3),
    "the narrower range": ("ListenStream=192.0.2.0/24:*\nListenStream=192.0.2.0/24:80-90\n", ["tcp", "192.0.2.7", 85],
                           4),
    "the longer prefix": (TCP + f"ListenStream=192.0.2.128/25:{PORT}\n", ["tcp", "192.0.2.200", PORT], 4),
    "a client that Source= names": (TCP + "Source=10.0.0.0/8\n", ["tcp", "192.0.2.7", PORT, "--from=10.1.1.1:9"], 3),
    "an interface that is named": (TCP + "Interface=lo\n", ["tcp", "192.0.2.7", PORT, "--interface=lo"], 3),
    "several that share": (TCP + "Handover=share\n", ["tcp", "192.0.2.7", PORT], 3),
    "what was not to be passed on": (TCP + "WhenAbsent=pass\n", ["tcp", "192.0.2.7", PORT], 3),
}


@pytest.fixture(autouse=True)
def _host(remote):  # pylint: disable=unused-argument
    add_routes()
    with socket.create_server((HOST, 8080)):
        yield


def explain(broker, words):
    status, text = broker.ctl("explain", *map(str, words), "--json=short", "--bpffs", str(broker.bpffs))
    assert status == 0, text
    return json.loads(text), text


def test_s15_thirty_and_more_of_which_twenty_are_wrong():
    assert len(WRONG_FOR_VERIFY) + len(WRONG_FOR_EXPLAIN) >= 30
    assert len(WRONG_FOR_VERIFY) >= 20 and len(GOOD) >= 10


@pytest.mark.parametrize("name", WRONG_FOR_VERIFY)
def test_s15_verify_names_the_cause_and_the_line(broker, name):
    text, line, words = WRONG_FOR_VERIFY[name]
    broker.policy(text)
    status, output = broker.ctl("--config-dir", str(broker.config), "--json=short", "verify", "--strict")
    found = json.loads(output)
    assert status == 1
    assert [row
            for row in found if row["line"] == line and row["file"].endswith(FILE) and words in row["message"]], found


@pytest.mark.parametrize("name", WRONG_FOR_EXPLAIN)
def test_s15_explain_names_the_cause_and_the_line(broker, name):
    text, asked, verdict, service, line, words = WRONG_FOR_EXPLAIN[name]
    broker.policy(text).start()
    row, output = explain(broker, asked)
    assert (row["verdict"], row["service"]) == (verdict, service), row
    assert (row["binding"] and row["binding"]["line"]) == line, row
    if words.startswith(FILE):
        steps = [f"{binding['file']}:{binding['line']}" for binding in row["next"]]
        assert any(step.endswith(words) for step in steps) or words in output, row
    else:
        assert words in output, row


@pytest.mark.parametrize("name", GOOD)
def test_s15_explain_names_the_line_that_decides_where_all_is_well(broker, spawn, name):
    lines, asked, line = GOOD[name]
    broker.policy(WEB + lines).start()
    cookie = handed_over(spawn("web", 61001), "tcp", "ipv4")
    row, _ = explain(broker, asked)
    assert (row["verdict"], row["service"], row["cookie"],
            row["binding"]["line"]) == ("socket", "web", cookie, line), row


def test_s15_a_family_that_no_socket_of_the_service_serves(broker, spawn):
    broker.policy(WEB + TCP + f"ListenStream=[2001:db8::]/64:{PORT}\n").start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    row, output = explain(broker, ["tcp", "2001:db8::7", PORT])
    assert (row["verdict"], row["service"],
            row["binding"]["line"]) == ("refused", "web", 4) and "for tcp and ipv6" in output, row
