# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a person is told: of a registration that was taken and is probably not as it was meant, of one that was not, and
by whom it was asked for."""

import re
import subprocess

import pytest

from harness import broker as broker_module
from words import PREFIXES, handed_over, listen, open_socket, section

UID = 61001
BOTH = listen("tcp", PREFIXES["ipv4"]) + listen("tcp", PREFIXES["ipv6"])
DNS = listen("udp", PREFIXES["ipv4"], 53)


def registered(one, *labels, service=None):
    reply = one.register(*labels, service=service)
    assert reply.result == "ok", reply
    return reply.warnings


# Warnings of an answer.


def test_a_udp_socket_whose_port_is_none_of_the_services_is_warned_of(broker, spawn):
    broker.policy(section("dns", UID, DNS)).start()
    dns = spawn("dns", launched={"right": ("udp", "127.0.0.2", 53, {}), "wrong": ("udp", "127.0.0.2", 5353, {})})
    assert registered(dns, "right") == []
    warning, = registered(dns, "wrong")
    assert "127.0.0.2:5353" in warning and "port 5353" in warning and "53" in warning
    entry = broker.wait_log("warn: (.*)").group(1)
    assert warning in entry and "dns" in entry and f"uid {UID}" in entry


def test_any_port_and_ranges_are_the_services_ports(broker, spawn):
    broker.policy(section("any", UID, listen("udp", PREFIXES["ipv4"], "*")) +
                  section("range", UID, listen("udp", PREFIXES["ipv4"], "5000-5999"))).start()
    one = spawn("any")
    open_socket(one, "udp", "ipv4", "a", port=5500)
    assert registered(one, "a", service="any") == [] and registered(one, "a", service="range") == []
    open_socket(one, "udp", "ipv4", "b", port=6000)
    assert len(registered(one, "b", service="range")) == 1


def test_a_port_of_the_other_family_is_none_of_the_sockets(broker, spawn):
    broker.policy(section("dns", UID, DNS, listen("udp", PREFIXES["ipv6"], 5300))).start()
    dns = spawn("dns")
    open_socket(dns, "udp", "ipv4", "four", port=5300)
    open_socket(dns, "udp", "ipv6", "six", port=5300)
    warning, = registered(dns, "four", "six")
    assert "127.0.0.1:5300" in warning and "of service dns (53)" in warning, "and it is not named as one"


def test_a_port_of_bindings_that_no_client_matches_is_none_of_the_services(broker, spawn):
    """With Source= of IPv6 alone a socket of both families serves IPv6 alone."""
    broker.policy(section("dns", UID, listen("udp", PREFIXES["ipv4"], 5300), listen("udp", PREFIXES["ipv6"], 5301),
                          "Source=2001:db8::/32")).start()
    dns = spawn("dns")
    open_socket(dns, "udp", "ipv4", "wrong", port=5300, dual=True)
    open_socket(dns, "udp", "ipv4", "right", port=5301, dual=True)
    warning, = registered(dns, "wrong")
    assert "port 5300" in warning and "of service dns (5301)" in warning
    assert registered(dns, "right") == []


@pytest.mark.parametrize("family, missing", [("ipv4", "IPv6"), ("ipv6", "IPv4")])
def test_a_socket_of_one_of_two_families_is_warned_of_while_nobody_serves_the_other(broker, spawn, family, missing):
    broker.policy(section("web", UID, BOTH)).start()
    web = spawn("web")
    other = {"ipv4": "ipv6", "ipv6": "ipv4"}[family]
    open_socket(web, "tcp", family)
    open_socket(web, "tcp", other)
    open_socket(web, "tcp", "ipv4", "dual", dual=True)
    warning, = registered(web, f"tcp-{family}")
    assert missing in warning and "web" in warning
    assert registered(web, f"tcp-{other}") == [], "both are served now"
    assert registered(web, "tcp-ipv4", "tcp-ipv6") == registered(web, "dual") == []


def test_the_journal_has_it_once_a_family_has_stayed_without_a_socket(broker, spawn):
    """A server that opens a socket for each family hands over one after the other."""
    broker.policy(section("web", UID, BOTH) + section(
        "half", UID, listen("tcp", PREFIXES["ipv4"], 80), listen("tcp", PREFIXES["ipv6"], 80))).start()
    one = spawn("web")
    for family in ("ipv4", "ipv6"):
        open_socket(one, "tcp", family)
        assert one.register(f"tcp-{family}").result == "ok"
    open_socket(one, "tcp", "ipv4", "half")
    first, = registered(one, "half", service="half")
    entry = broker.wait_log("warn: (.*)").group(1)  # of web it would have come before
    assert entry.startswith("half was registered by ") and first in entry
    assert registered(one, "half", service="half") == [first], "the answer has it each time"
    open_socket(one, "tcp", "ipv4", "next")
    second, = registered(one, "next", service="half")
    broker.wait_log("(?s)warn: .*warn: half was registered by .*" + re.escape(second))
    assert broker.log().count("warn: ") == 2, "once for each socket"


def test_who_registers_for_another_process_is_not_told_and_the_journal_is(broker, spawn):
    """The process may bind its socket of the other family next."""
    broker.policy(section("web", UID, BOTH)).start()
    program, helper = spawn("program", UID), spawn("helper", UID)
    open_socket(helper, "tcp", "ipv4")
    reply = helper.register("tcp-ipv4", text=f"FDSTORE=1\nFDNAME=web\nPID={program.pid}")
    assert (reply.result, reply.warnings) == ("ok", [])
    broker.wait_log("warn: web was registered by .* serves IPv4 only and nothing serves the IPv6 bindings")


def test_warnings_reach_who_runs_the_tools(broker, spawn):  # pylint: disable=unused-argument
    broker.policy(section("web", UID, BOTH)).start()
    done = passed(["web"], [("tcp", "127.0.0.1")], "sockbrokerctl", "--runtime-dir=/run/sockbroker", "register")
    assert done[0] == 0 and "web: 1 socket registered" in done[1]
    assert re.search(r"^sockbrokerctl: web: warning: .*IPv6", done[2], re.M), done[2]
    done = passed(["web"], [("tcp", "127.0.0.1")], "sockbrokerctl", "--runtime-dir=/run/sockbroker", "--json=short",
                  "register")
    assert '"warnings":["' in done[1]


# Refusals.


def test_two_listeners_of_one_service_are_told_to_be_two_services(broker, spawn):
    broker.policy(section("web", UID, listen("tcp", PREFIXES["ipv4"], 80),
                          listen("tcp", PREFIXES["ipv4"], 443))).start()
    web = spawn("web", launched={"http": ("tcp", "127.0.0.1", 80, {}), "https": ("tcp", "127.0.0.1", 443, {})})
    reply = web.register("http", "https")
    assert reply.result == "wrong-socket"
    assert "127.0.0.1:80" in reply.message and "127.0.0.1:443" in reply.message
    assert "another service for the other port" in reply.message and "or with Handover=share" not in reply.message


def test_workers_on_one_port_are_told_of_share(broker, spawn):
    broker.policy(section("web", UID, BOTH)).start()
    web = spawn("web")
    for label in ("one", "two"):
        open_socket(web, "tcp", "ipv4", label, port=8080, reuseport=True)
    reply = web.register("one", "two")
    assert reply.result == "wrong-socket" and "Handover=share" in reply.message


def test_a_refusal_in_the_journal_says_who_was_refused(broker, spawn):
    broker.policy(section("web", UID, BOTH)).start()
    stranger = spawn("stranger", 61002)
    open_socket(stranger, "tcp", "ipv4")
    assert stranger.register("tcp-ipv4", service="web").result == "not-permitted"
    text = broker.wait_log("refuse: (.*)").group(1).split(" (service=")[0]
    assert text.startswith(f"pid {stranger.pid}, uid 61002 was refused: "), text
    stranger.control("NONSENSE=1")
    text = broker.wait_log("refuse: (.*NONSENSE.*)").group(1)
    assert f"pid {stranger.pid}, uid 61002" in text.split(": ")[0], "before its unit was looked up"


# One socket, several descriptors.


@pytest.mark.parametrize("handover", ["share", "replace", "refuse"])
def test_a_socket_that_comes_twice_in_a_message_counts_once(broker, spawn, handover):
    broker.policy(section("web", UID, BOTH, f"Handover={handover}", "MaxSockets=2")).start()
    web = spawn("web")
    cookie = open_socket(web, "tcp", "ipv4", "one") and web.facts("one")[1]
    reply = web.register("one", "one", "one")
    assert (reply.result, reply.message) == ("ok", "registered 1 socket for web")
    assert [row["cookie"] for row in broker.list()] == [cookie]
    broker.kill()
    broker.start()
    assert [row["cookie"] for row in broker.list()] == [cookie], "nor does the next broker find more"
    status = broker.status()[0]
    assert status["sockets"]["live"] == 1 and status["sockets"]["draining"] == 0


def test_a_held_socket_that_is_retrieved_and_passed_again_counts_once(broker, spawn):
    broker.policy(section("web", UID, BOTH, "Handover=share", "HoldSec=60", "MaxSockets=2")).start()
    first = spawn("web")
    cookie = handed_over(first, "tcp", "ipv4")
    first.kill()
    broker.wait_log("waits")
    second = spawn("web")
    assert second.retrieve().result == "ok"
    assert second.register("retrieved-0", "retrieved-0").result == "ok"
    assert [(row["cookie"], row["state"]) for row in broker.list()] == [(cookie, "live")]
    open_socket(second, "tcp", "ipv4", "more")
    assert second.register("more", "retrieved-0", "more").result == "ok", "MaxSockets=2 has room for one more"
    assert len(broker.list()) == 2


# sockbrokerctl register and wait.


def passed(names, sockets, program, *words):
    """A tool of the build as an ordinary user, with descriptors passed as systemd passes them."""
    makes = {"tcp": "socket.create_server(({0!r}, 0), family=socket.AF_INET6 if ':' in {0!r} else socket.AF_INET)",
             "unix": "socket.socket(socket.AF_UNIX)", "pair": "socket.socketpair()[0]",
             "accepted": "accepted({0!r})"}
    script = "import os, socket, sys\n" \
             "def accepted(at):\n" \
             "    l = socket.create_server((at, 0)); c = socket.create_connection(l.getsockname())\n" \
             "    a = l.accept()[0]\n" \
             "    keep.append(c); return a\n" \
             "keep = []\n" \
             f"made = [{', '.join(makes[kind].format(*more) for kind, *more in sockets)}]\n" \
             "moved = [os.dup2(os.dup(s.fileno()), 100 + i) for i, s in enumerate(made)]\n" \
             "[os.dup2(fd, 3 + i) for i, fd in enumerate(moved)]\n" \
             f"os.setresgid({UID}, {UID}, {UID}); os.setresuid({UID}, {UID}, {UID})\n" \
             "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(made)), " \
             f"LISTEN_FDNAMES={':'.join(names)!r})\n" \
             "os.execv(sys.argv[1], sys.argv[1:])\n"
    with open(broker_module.BUILD / program, "rb") as tool:  # whose directories may be closed to that user
        done = subprocess.run(["/usr/bin/python3", "-c", script, f"/proc/self/fd/{tool.fileno()}", *words],
                              pass_fds=[tool.fileno()], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr.replace(f"{tool.name}", program)


def register(names, sockets, *words):
    return passed(names, sockets, "sockbrokerctl", "--runtime-dir=/run/sockbroker", "register", *words)


@pytest.fixture(name="web")
def _web(broker):
    return broker.policy(section("web", UID, listen("tcp", PREFIXES["ipv4"]))).start()


def test_register_passes_over_what_is_no_ip_socket_and_says_so(web):
    status, output, said = register(["web", "web"], [("tcp", "127.0.0.1"), ("unix",)])
    assert (status, output) == (0, "web: 1 socket registered\n")
    assert "UNIX socket" in said and "passed over" in said
    web.wait_log("register: ")
    assert web.log().count("register: ") == 1
    status, output, said = register(["control", "web"], [("unix",), ("tcp", "127.0.0.1")])
    assert (status, output) == (0, "web: 1 socket registered\n"), "its name is not looked at"
    status, _, said = register(["web"], [("unix",)])
    assert status == 1 and "UNIX socket" in said, "nothing is left to register"


@pytest.mark.parametrize("name", ["web.socket", "connection", "unknown", "stored", "web.service"])
def test_names_that_systemd_gives_by_itself_get_a_hint(web, name):  # pylint: disable=unused-argument
    status, _, said = register([name], [("tcp", "127.0.0.1")])
    assert status != 0 and "FileDescriptorName=" in said


def test_a_connection_of_accept_yes_gets_a_hint_by_whatever_name(web):  # pylint: disable=unused-argument
    for words in ([], ["web"]):
        status, _, said = register(["connection"], [("accepted", "127.0.0.1")], *words)
        assert status != 0 and "Accept=no" in said


def test_wait_for_a_service_that_no_policy_has(web):
    for state in ("live", "drained"):
        done = passed(["web"], [], "sockbrokerctl", "--runtime-dir=/run/sockbroker", "wait", "nosuch", f"--for={state}",
                      "--timeout=5s")
        assert done[0] == 1 and "unknown-service" in done[2], done
    assert web.ask("VERB=status").result == "ok"


# Groups of SO_REUSEPORT.


def test_a_group_that_spans_two_services_is_warned_of(broker, spawn):
    lines = [listen("udp", PREFIXES["ipv6"], 53)]
    broker.policy(section("one", UID, *lines) + section("two", UID, listen("udp", "2001:db8:9::/48", 53))).start()
    launched = {"a": ("udp", "::1", 53, {"reuseport": True}), "b": ("udp", "::1", 53, {"reuseport": True}),
                "c": ("udp", "fd00::7", 53, {"reuseport": True, "freebind": True})}
    both = spawn("one", launched=launched)
    assert registered(both, "a", service="one") == []
    warning, = registered(both, "b", service="two")
    assert "[::1]:53" in warning and "SO_REUSEPORT" in warning and "one" in warning
    broker.wait_log("warn: .*SO_REUSEPORT.*one")
    assert registered(both, "c", service="two") == [], "an address of its own"
    assert registered(both, "b", service="one") == [], "the next of the same service, the other one has moved away"


def test_the_next_broker_knows_the_group_too(broker, spawn):
    broker.policy(section("one", UID, BOTH) + section("two", UID, listen("tcp", "198.51.100.0/24"))).start()
    both = spawn("one")
    open_socket(both, "tcp", "ipv4", "a", port=8080, reuseport=True)
    open_socket(both, "tcp", "ipv4", "b", port=8080, reuseport=True)
    registered(both, "a", service="one")
    broker.kill()
    broker.start()
    assert any("SO_REUSEPORT" in text for text in registered(both, "b", service="two"))
    assert not any("SO_REUSEPORT" in text for text in registered(both, "a", service="two")), "one socket is no group"
