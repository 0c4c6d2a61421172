# SPDX-License-Identifier: LGPL-2.1-or-later
"""VERB=match: which service that admits the sender would take a socket bound there; and PID=, whose sockets they
are."""

import concurrent.futures
import contextlib
import os

from words import ADDRESS, LOOPBACK, PORT, add_routes, each_protocol, handed_over, listen, section, who

UID, OTHER = 61001, 61002


def match(one, protocol, address, port=PORT, *, names=None, pid=None):
    text = f"VERB=match\nPROTOCOL={protocol}\nADDRESS={address}\nPORT={port}"
    text += f"\nFDNAME={names}" if names else ""
    return one.control(text + (f"\nPID={pid}" if pid else ""))


def taken_by(reply):
    assert reply.result == "ok", reply
    [line] = reply.lines
    return line["service"]


POLICY = (section("wide", UID, listen("tcp", "192.0.2.0/24"), listen("udp", "192.0.2.0/24", "*"))
          + section("narrow", UID, listen("tcp", "192.0.2.7/32"))
          + section("six", UID, listen("tcp", "2001:db8::/64"))
          + section("others", OTHER, "ListenStream=8080"))


def test_a_match_says_who_takes_it_and_changes_nothing(broker, spawn):
    broker.policy(POLICY).start()
    one = spawn("wide")
    before = broker.snapshot()
    assert taken_by(match(one, "tcp", "192.0.2.9")) == "wide"
    assert taken_by(match(one, "tcp", ADDRESS["ipv4"])) == "narrow"
    assert taken_by(match(one, "tcp", "0.0.0.0", names="wide")) == "wide"
    assert taken_by(match(one, "tcp", "0.0.0.0", names="others:narrow")) == "narrow"
    assert taken_by(match(one, "tcp", "::")) == "six"
    assert taken_by(match(one, "udp", "0.0.0.0", 53)) == "wide"
    assert match(one, "udp", "192.0.2.9", 53).lines == [{
        "service": "wide", "protocol": "udp", "prefix": "192.0.2.0/24", "ports": None, "handover": "replace",
        "hold_usec": 0, "reuse_port": False, "file": "/run/config/conf.d/50-test.conf", "line": 4}]
    assert broker.snapshot() == before


def test_a_family_without_clients_takes_nothing(broker, spawn):
    """Source= of one family alone: bindings of the other match nobody, and registering for them is refused."""
    broker.policy(section("four", UID, "Source=10.0.0.0/8", "ListenStream=443", "ListenStream=444")
                  + section("six", UID, "ListenStream=[::]/0:443")).start()
    one = spawn("web")
    assert taken_by(match(one, "tcp", "::", 443)) == "six"
    assert taken_by(match(one, "tcp", "0.0.0.0", 443)) == "four"
    reply = match(one, "tcp", "::", 444)
    assert reply.result == "not-permitted" and "tcp 444 for clients of IPv4 alone" in reply.message, reply


def test_what_nobody_takes_is_refused_and_in_the_journal(broker, spawn):
    broker.policy(POLICY).start()
    one = spawn("wide")
    reply = match(one, "tcp", "192.0.2.9", 81)
    assert (reply.result, reply.errno) == ("not-permitted", 13)
    broker.wait_log(r"refuse: .*takes a socket bound to tcp 192\.0\.2\.9:81")
    reply = match(one, "tcp", "0.0.0.0", 8080)
    assert reply.result == "not-permitted" and "others" in reply.message, reply
    assert match(one, "tcp", "0.0.0.0", 8080, names="others").result == "not-permitted"
    assert match(one, "tcp", "0.0.0.0", names="wide:not-there").result == "unknown-service"
    assert match(one, "tcp", "0.0.0.0", names=None).result == "ambiguous"  # wide and narrow alike
    assert taken_by(match(spawn("other", OTHER), "tcp", "0.0.0.0", 8080)) == "others"


def test_one_that_handover_refuse_refuses_is_busy(broker, spawn):
    broker.policy(section("web", UID, listen("tcp", "192.0.2.0/24"), listen("tcp", "2001:db8::/64"),
                          "Handover=refuse")).start()
    first, second = spawn("web"), spawn("web")
    assert taken_by(match(second, "tcp", "0.0.0.0")) == "web"
    handed_over(first, "tcp", "ipv4", "one")
    reply = match(second, "tcp", "0.0.0.0")
    assert (reply.result, reply.errno) == ("busy", 16)
    assert taken_by(match(second, "tcp", "::")) == "web"  # nobody has that family
    first.close("one")
    assert taken_by(match(second, "tcp", "0.0.0.0")) == "web"


def test_the_most_services_that_may_be_meant(broker, spawn):
    """Each by the name of an account, so that each is a question to the host."""
    broker.policy("".join(f"[Service s{i}]\nUser=daemon\nListenStream=10.{i}.0.0/16:80\n" for i in range(200))).start()
    one = spawn("s", 1)  # daemon
    assert match(one, "tcp", "0.0.0.0", 80).result == "ambiguous"
    assert taken_by(match(one, "tcp", "10.77.0.1", 80)) == "s77"
    reply = match(spawn("other"), "tcp", "0.0.0.0", 80)
    assert reply.result == "not-permitted", reply


def test_a_pid_says_whose_the_sockets_are(broker, spawn):
    broker.policy(section("web", UID, listen("tcp", "192.0.2.0/24"))).start()
    helper, program, stranger = spawn("web"), spawn("web"), spawn("web", OTHER)
    helper.open("one", "tcp", "127.0.0.1", 0)
    reply = helper.control(f"FDSTORE=1\nFDNAME=web\nPID={program.pid}", "one")
    assert reply.result == "ok", reply
    assert [entry["pid"] for entry in broker.list()] == [program.pid]
    assert broker.wait_log(r"register: .*")
    for pid in (stranger.pid, os.getpid(), 1):
        reply = helper.control(f"FDSTORE=1\nFDNAME=web\nPID={pid}", "one")
        assert (reply.result, reply.get("CAUSE")) == ("not-permitted", "PID"), reply
        assert f"PID={pid} is not believed" in reply.message
    stranger.open("two", "tcp", "127.0.0.1", 0)
    assert stranger.control(f"FDSTORE=1\nFDNAME=web\nPID={program.pid}", "two").result == "not-permitted"
    assert [entry["pid"] for entry in broker.list()] == [program.pid]
    program.kill()
    assert helper.control(f"FDSTORE=1\nFDNAME=web\nPID={program.pid}", "one").result == "not-permitted"


def test_root_may_name_a_process_of_another_user_and_is_judged_as_that_one(broker, spawn):
    broker.policy(section("web", UID, listen("tcp", "192.0.2.0/24"))).start()
    program, stranger = spawn("web"), spawn("web", OTHER)
    text = f"VERB=match\nPROTOCOL=tcp\nADDRESS=0.0.0.0\nPORT={PORT}"
    assert broker.ask(text).result == "not-permitted"  # root gets no bypass
    assert broker.ask(f"{text}\nPID={program.pid}").result == "ok"
    reply = broker.ask(f"{text}\nPID={stranger.pid}")
    assert (reply.result, reply.get("CAUSE")) == ("not-permitted", None), "by policy, not by PID="


# sockbrokerctl register --pid=: a program that runs and knows nothing of the broker.

def everything():
    return "".join(listen(protocol, prefix) for protocol in ("tcp", "udp")
                   for prefix in ("192.0.2.0/24", "2001:db8::/64"))


def test_root_registers_the_sockets_of_a_program_that_runs(broker, spawn):
    add_routes()
    broker.policy(section("web", UID, everything())).start()
    program = spawn("web")
    program.open("wanted", "tcp", "0.0.0.0", PORT)
    program.open("udp", "udp", "0.0.0.0", PORT)
    program.open("other", "tcp", "127.0.0.1", 9999)
    program.open("dual", "tcp", "::", PORT + 1, dual=False)
    status, said = broker.ctl("register", f"--pid={program.pid}", "web")
    assert (status, said) == (0, f"web: 2 sockets of process {program.pid} registered\n") or "warning" in said, said
    entries = broker.list()
    assert {(entry["protocol"], entry["pid"], entry["uid"]) for entry in entries} == {
        ("tcp", program.pid, UID), ("udp", program.pid, UID)}
    assert {entry["cookie"] for entry in entries} == {program.facts("wanted")[1], program.facts("udp")[1]}
    assert who("tcp", "ipv4") == "web"


@each_protocol
def test_a_socket_at_a_v4_mapped_address_is_found_as_one_of_ipv4(broker, spawn, protocol):
    """As a Java server binds it."""
    add_routes()
    broker.policy(section("web", UID, listen(protocol, "192.0.2.0/24"))).start()
    program = spawn("web")
    program.open("elsewhere", protocol, "::ffff:198.51.100.1", PORT, dual=True, freebind=True)
    program.open("wanted", protocol, "::ffff:192.0.2.7", PORT, dual=True)
    status, said = broker.ctl("register", f"--pid={program.pid}", "web")
    assert status == 0, said
    assert [entry["cookie"] for entry in broker.list()] == [program.facts("wanted")[1]]


def test_a_socket_that_is_not_meant_ends_no_wait(broker, spawn):
    broker.policy(section("web", UID, everything())).start()
    program = spawn("web")
    program.open("other", "tcp", "127.0.0.1", 9999)
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        tool = beside.submit(broker.ctl, "register", "--timeout=30s", f"--pid={program.pid}", "web")
        with contextlib.suppress(concurrent.futures.TimeoutError):
            tool.result(0.3)
        assert not tool.done(), tool.result()
        program.open("wanted", "tcp", "0.0.0.0", PORT)
        assert tool.result(30)[0] == 0
    assert [entry["cookie"] for entry in broker.list()] == [program.facts("wanted")[1]]


def test_sockets_are_chosen_by_protocol_and_bound_address(broker, spawn):
    add_routes()
    broker.policy(section("web", UID, everything())).start()
    program = spawn("web")
    port, cookie = program.open("a", "tcp", LOOPBACK["ipv4"], 0)
    program.open("b", "tcp", LOOPBACK["ipv4"], 0)
    status, said = broker.ctl("register", "--timeout=200ms", f"--pid={program.pid}", "web")
    assert status == 1 and f"tcp:127.0.0.1:{port}" in said and broker.list() == [], said
    assert broker.ctl("register", f"--pid={program.pid}", "web", f"tcp:127.0.0.1:{port}")[0] == 0
    assert [entry["cookie"] for entry in broker.list()] == [cookie]
    status, said = broker.ctl("register", f"--pid={program.pid}", "web", "tcp:127.0.0.1:1", "--timeout=200ms")
    assert status == 1 and "has no socket tcp:127.0.0.1:1" in said, said
    for words in (["--pid=0", "web"], [f"--pid={program.pid}"], ["web", "tcp:127.0.0.1:1"]):
        assert broker.ctl("register", *words)[0] == 2


def test_a_program_that_the_policy_does_not_admit_is_not_registered_by_root_either(broker, spawn):
    broker.policy(section("web", UID, everything())).start()
    stranger = spawn("web", OTHER)
    port, _ = stranger.open("a", "tcp", "0.0.0.0", PORT)
    status, said = broker.ctl("register", "--timeout=200ms", f"--pid={stranger.pid}", "web")
    assert status == 1 and "does not admit" in said, said
    status, said = broker.ctl("register", f"--pid={stranger.pid}", "web", f"tcp:0.0.0.0:{port}")
    assert status == 1 and "has uid 61002" in said and broker.list() == [], said


# The most helpful refusal: who does admit the sender, and what that has.


def test_s15_a_port_that_no_admitting_service_has_names_those_that_admit_with_what_they_have(broker, spawn):
    broker.policy(POLICY).start()
    one = spawn("wide")
    reply = match(one, "tcp", "0.0.0.0", 8080)
    assert reply.result == "not-permitted"
    admits, _, refuses = reply.message.partition("not admitted to service others")
    assert "narrow, which admits the sender, has tcp 192.0.2.7/32:7000" in admits, "first, and with what it has"
    assert "wide, which admits the sender, has tcp 192.0.2.0/24:7000" in admits
    assert f"User={OTHER}" in refuses, "then why the one that has the port does not"
    reply = match(one, "tcp", "0.0.0.0", 81, names="others:wide")
    assert "wide, which admits the sender, has tcp 192.0.2.0/24:7000" in reply.message, reply
    reply = match(one, "udp", "::", 53, names="narrow")
    assert "narrow, which admits the sender, has tcp 192.0.2.7/32:7000" in reply.message, \
        "of another protocol and family"
    stranger = match(spawn("none", 61003), "tcp", "0.0.0.0", 9)
    assert "no service has a binding that covers it, or admits the sender" in stranger.message, stranger


def test_s15_what_a_service_has_is_told_in_a_few_words_however_much_it_is(broker, spawn):
    broker.policy(section("many", UID, *(listen("tcp", f"10.0.{i}.0/24", 80) for i in range(200)))
                  + "".join(section(f"s{i}", UID, f"ListenStream={443 + i}") for i in range(50))).start()
    message = match(spawn("many"), "tcp", "0.0.0.0", 81).message
    assert ("many, which admits the sender, has tcp 10.0.0.0/24:80, tcp 10.0.1.0/24:80, tcp 10.0.2.0/24:80 and more"
            in message)
    assert len(message) < 500 and message.count("admits the sender, has") == 3


def test_s15_without_a_name_the_service_that_is_nearest_says_why_not(broker, spawn):
    """Which that is: the unit, then the name of the unit, then the user, then the group."""
    broker.policy(section("web", UID, "Unit=web.service", "ListenStream=80")
                  + section("dns", OTHER, "ListenDatagram=53")).start()
    refused = spawn("web").control("FDSTOREREMOVE=1")
    assert refused.result == "not-permitted"
    assert "the nearest is web: Unit=web.service at /run/config/conf.d/50-test.conf:3 does not match" in refused.message
    stranger = spawn("other", 61003).control("FDSTOREREMOVE=1")
    assert "name one with FDNAME=" in stranger.message, "none is nearer than the others"
