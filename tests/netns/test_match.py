# SPDX-License-Identifier: LGPL-2.1-or-later
"""VERB=match: which service that admits the sender would take a socket bound there; and PID=, whose sockets they are."""

import os

from words import ADDRESS, PORT, handed_over, listen, section

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
        "hold_usec": 0, "file": "/run/config/conf.d/50-test.conf", "line": 4}]
    assert broker.snapshot() == before


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
        assert reply.result == "not-permitted" and f"PID={pid} is not believed" in reply.message, reply
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
    assert broker.ask(f"{text}\nPID={stranger.pid}").result == "not-permitted"
