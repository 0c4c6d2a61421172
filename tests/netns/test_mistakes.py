# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bad input, as tests/data lists it, given to the real daemon: each mistake has its exact answer, and what runs is
untouched after each: rules, registrations, and a query that is answered as before."""

import json
import pathlib
import re

import pytest

from harness import broker as broker_module
from harness import kernel, oddities, wire
from words import add_routes, everywhere, handed_over, listen, who

DATA = broker_module.TOP / "tests/data"
POLICY_MISTAKES = json.loads((DATA / "policy_mistakes.json").read_text())
PROTOCOL_MISTAKES = json.loads((DATA / "protocol_mistakes.json").read_text())

GROUP = 61001  # whoever is of this group may register for web
GOOD = f"[Service web]\nGroup={GROUP}\n" + everywhere()


def test_there_are_enough_of_them():
    assert len(POLICY_MISTAKES) >= 40 and len(PROTOCOL_MISTAKES) >= 40


@pytest.fixture
def running(broker, spawn):
    """A broker that serves, and a function that proves it untouched."""
    add_routes()
    broker.policy(GOOD).start()
    web = spawn("web", GROUP)
    for protocol in ("tcp", "udp"):
        for family in ("ipv4", "ipv6"):
            handed_over(web, protocol, family)
    broker.wait_log(r"(?s)(register: .*){4}")  # so that whatever comes later is of the mistakes
    before = broker.snapshot()

    def untouched():
        assert broker.snapshot() == before
        assert [who(protocol, family) for protocol in ("tcp", "udp") for family in ("ipv4", "ipv6")] == ["web"] * 4

    untouched()
    return untouched


def write_files(broker, files):
    for old in (broker.config / "conf.d").iterdir():
        old.unlink()
    for name, text in files.items():
        broker.policy(text, name)


def errors_of(broker, lines):
    """Diagnostics as the table writes them: file names without the directory."""
    folder = f"{broker.config}/conf.d/"
    return [f"{line['file']}:{line['line']}: {line['message']}".replace(folder, "")
            for line in lines if line["severity"] == "error"]


def refused_with(broker, mistake):
    """Reload and verify both say exactly the errors of the table."""
    reply = broker.ask("VERB=reload")
    assert reply.result == "malformed"
    assert re.fullmatch(r"policy refused, \d+ errors?, the running policy stays", reply.message)
    assert errors_of(broker, reply.lines) == mistake["errors"]
    status, output = broker.ctl("--config-dir", str(broker.config), "--json=short", "verify")
    assert status == 1
    assert errors_of(broker, json.loads(output)) == mistake["errors"]


def test_policy_mistakes(broker, running):
    mistakes = [mistake for mistake in POLICY_MISTAKES if "limits" not in mistake]
    for mistake in mistakes:
        write_files(broker, mistake["files"])
        refused_with(broker, mistake)
        running()
        assert broker.status()[0]["state"] == "degraded"
    write_files(broker, {"50-test.conf": GOOD})
    assert broker.reload()[0] == 0
    assert broker.status()[0]["state"] == "running"
    running()


@pytest.mark.parametrize("mistake", [m for m in POLICY_MISTAKES if "limits" in m], ids=lambda m: m["name"])
def test_policy_mistakes_against_limits(broker, spawn, mistake):
    add_routes()
    limits = "".join(f"{key}={value}\n" for key, value in mistake["limits"].items())
    (broker.config / "sockbrokerd.conf").write_text(f"[Broker]\n{limits}")
    broker.policy(f"[Service web]\nGroup={GROUP}\n" + listen("tcp", "192.0.2.0/24")).start()
    handed_over(spawn("web", GROUP), "tcp", "ipv4")
    before = broker.snapshot()
    write_files(broker, mistake["files"])
    refused_with(broker, mistake)
    assert broker.snapshot() == before
    assert who("tcp", "ipv4") == "web"


def message_of(mistake):
    text = mistake["text"]
    if "pad_to" in mistake:
        text = (text + "PAD=").ljust(mistake["pad_to"], "x")
    fds = mistake["fds"]
    return text, ["tcp-listener"] * fds if isinstance(fds, int) else fds


@pytest.mark.parametrize("kind", sorted({kind for mistake in PROTOCOL_MISTAKES for kind in message_of(mistake)[1]}))
def test_this_kernel_has(kind):
    """What it does not have is left out below."""
    if not oddities.kernel_has(kind):
        pytest.skip("this kernel has no such socket")


def on_channel(channel):
    return [(number, mistake) for number, mistake in enumerate(PROTOCOL_MISTAKES)
            if mistake["channel"] in ("both", channel) and all(map(oddities.kernel_has, message_of(mistake)[1]))]


def sender(spawn, number, kinds):
    """Each mistake has a sender of its own, since repeated refusals of one are not all logged."""
    return spawn(f"sender-{number}", 62000 + number, {f"fd-{i}": (kind, "ipv4") for i, kind in enumerate(kinds)}, GROUP)


def test_protocol_mistakes_on_the_control_socket(broker, running, spawn):
    for number, mistake in on_channel("control"):
        text, kinds = message_of(mistake)
        one = sender(spawn, number, kinds)
        reply = one.control(text, *one.labels())
        assert (reply.result, reply.message) == (mistake["result"], mistake["message"]), mistake["name"]
        assert reply.errno != 0 and reply.lines == []
        one.kill()
        running()


def test_protocol_mistakes_on_the_notify_socket(broker, running, spawn):
    for number, mistake in on_channel("notify"):
        text, kinds = message_of(mistake)
        one = sender(spawn, number, kinds)
        refused_before = broker.status()[0]["refused"]
        one.notify_and_wait(text, *one.labels())
        assert broker.status()[0]["refused"] == refused_before + 1, mistake["name"]
        broker.wait_log(re.escape(mistake["message"]))
        one.kill()
        running()


def test_mistakes_leak_no_descriptor(broker, running, spawn):
    """Descriptors that came with refused messages are closed, whatever was wrong."""
    with wire.Control(broker.control_path) as connection:

        def open_descriptors():
            connection.request("VERB=version")  # hang-ups of earlier connections were seen before this is answered
            return sorted(link.split(":")[0] for link in kernel.descriptors(broker.process.pid).values())

        before = open_descriptors()
        for number, mistake in on_channel("control"):
            text, kinds = message_of(mistake)
            if kinds:
                one = sender(spawn, number, kinds)
                one.control(text, *one.labels())
                one.notify_and_wait(text, *one.labels())
                one.kill()
        assert open_descriptors() == before
    running()


def test_a_hundred_thousand_mistakes_cost_the_journal_nothing_and_are_counted(broker, running):
    folder = broker.config / "conf.d"
    (folder / "90-crlf.conf").write_bytes(b"[Service x]\r\n" + b"User=1\r\n" * 99_999)
    before = len(broker.log().splitlines())
    status, output = broker.reload()
    assert status == 1
    lines = output.splitlines()
    wrong = "carriage return in the line, save the file with UNIX line ends"
    assert lines[:10] == [f"{folder}/90-crlf.conf:{i}: {wrong}" for i in range(1, 11)]
    assert lines[10:] == ["sockbrokerctl: 991 more, all of them by: sockbrokerctl verify",
                          "sockbrokerctl: policy refused, 100000 errors, the running policy stays"]
    broker.wait_log("reload-failed: policy refused, 100000 errors")
    told = broker.log().splitlines()[before:]
    assert len(told) == 102 and broker.status()[0]["journal_lost"] == 0
    assert told[100].startswith("diagnostic: only the first 100 of 100000 errors, and warnings are written here")
    verify = broker.ctl("--config-dir", str(broker.config), "--json=short", "verify")
    assert json.loads(verify[1]) == broker.ask("VERB=reload").lines
    running()


def test_two_hundred_thousand_conflicts_are_answered_at_nobodys_expense(broker, running):
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=500000\n")
    broker.stop()
    broker.start()
    twice = "".join(f"[Service {name}]\nUser=1\n" + "".join(
        f"ListenStream=10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80\n" for i in range(200_000)) for name in "xy")
    broker.policy(twice, "90-twice.conf")
    with wire.Control(broker.control_path) as control:
        control.send("VERB=reload")
        broker.ask("VERB=version")
        reply = control.receive()
    assert reply.message == "policy refused, 200000 errors, the running policy stays"
    assert [line["line"] for line in reply.lines] == [*range(200_005, 201_005), 0]
    assert reply.lines[-1]["message"] == "199000 more errors in this file"
    running()


# What only the compiler of rules sees: as many rules as no packet can try.
SOURCES = "".join(f"Source=10.{i >> 8}.{i & 255}.0/24\n" for i in range(1100))
TOO_MANY_TO_TRY = {
    "of one prefix": ("[Service a]\nUser=1\nWhenAbsent=next\nListenStream=10.0.0.0/8:80\n" + SOURCES, 4),
    "of prefixes within each other": (
        "[Service a]\nUser=1\nWhenAbsent=next\nListenStream=10.0.0.0/8:80\nListenStream=10.0.0.0/9:80\n"
        + "".join(f"Source=10.{i >> 8}.{i & 255}.0/24\n" for i in range(600)), 5),
    "of interfaces that are not there": (
        "[Service a]\nUser=1\nWhenAbsent=next\nListenStream=10.0.0.0/8:80\n"
        + "".join(f"Interface=if{i}\n" for i in range(1100)), 4),
}


@pytest.mark.parametrize("text, line", TOO_MANY_TO_TRY.values(), ids=TOO_MANY_TO_TRY)
def test_verify_reload_and_start_refuse_what_does_not_compile_at_the_same_line(broker, running, text, line):
    broker.policy(text, "90-many.conf")
    reply = broker.ask("VERB=reload")
    errors = [row for row in reply.lines if row["severity"] == "error"]
    assert reply.message == "policy refused, 1 error, the running policy stays"
    assert [(row["file"], row["line"]) for row in errors] == [(f"{broker.config}/conf.d/90-many.conf", line)]
    assert "merge source prefixes or interfaces" in errors[0]["message"]
    status, output = broker.ctl("--config-dir", str(broker.config), "--json=short", "verify")
    assert status == 1
    assert [row for row in json.loads(output) if row["severity"] == "error"] == errors
    running()
    broker.stop()
    broker.start()
    reason = broker.status()[0]["reason"]
    assert reason.startswith(f"policy refused at start, 1 error (the first: "
                             f"{broker.config}/conf.d/90-many.conf:{line}: ")
    assert reason.endswith("; the last-known-good policy is in force")
    broker.wait_log(re.escape(errors[0]["message"]))


def test_verify_and_reload_tell_the_same_of_a_policy_that_is_taken(broker):
    broker.policy(
        "[Service a]\nUser=nobody-has-this-name\nGroup=nor-this\nInterface=if9\nListenStream=10.0.0.0/8:80\n").start()
    reply = broker.ask("VERB=reload")
    assert reply.result == "ok" and len(reply.lines) == 3
    status, output = broker.ctl("--config-dir", str(broker.config), "--json=short", "verify")
    # What the host makes of it only the tool says: here that the prefix is not local.
    told = [row for row in json.loads(output) if "ip route add local" not in row["message"]]
    assert status == 0 and told == reply.lines


def test_verify_and_reload_refuse_a_link_to_where_the_broker_may_not_read(broker, running):
    pathlib.Path("/run/elsewhere").mkdir()
    pathlib.Path("/run/elsewhere/a.conf").write_text(GOOD.replace("Service web", "Service other"))
    (broker.config / "conf.d/90-link.conf").symlink_to("/run/elsewhere/a.conf")
    reply = broker.ask("VERB=reload")
    assert reply.result == "malformed" and [row["file"]
                                            for row in reply.lines] == [f"{broker.config}/conf.d/90-link.conf"]
    assert reply.lines[0]["message"].startswith(
        "cannot read the file, let the broker's user read it, and no link lead out of")
    status, output = broker.ctl("--config-dir", str(broker.config), "--json=short", "verify")
    assert status == 1
    assert [row
            for row in json.loads(output) if row["file"].endswith("90-link.conf") and row["line"] == 0] == reply.lines
    running()
