# SPDX-License-Identifier: LGPL-2.1-or-later
"""What sockbrokerctl prints with --json has the fields that JSON OUTPUT of its manual lists for the verb, in that
order: sockets lost, routes asked for and refusals included."""

import json
import pathlib
import re

from words import everywhere, handed_over, section

MANUAL = pathlib.Path(__file__).parents[2] / "docs/man/sockbrokerctl.1"
POLICY = (section("web", 61001, everywhere(), "Accounting=binding") +
          section("dns", 61002, everywhere(9), "Announce=any", "LocalRoutes=yes", "UdpFlows=stay"))


def documented(verb):
    """The fields in braces of the verb's paragraph, a list each, in their order."""
    chapter = MANUAL.read_text(encoding="utf-8").split(".SH JSON OUTPUT\n")[1].split("\n.PP\n")[0]
    for paragraph in re.split(r"\.TP\n", chapter)[1:]:
        tag, text = paragraph.split("\n", 1)
        if verb in re.findall(r"[a-z]+", tag):
            return [group.split(", ") for group in re.findall(r"\{([a-z_, ]+)\}", text)]
    raise AssertionError(f"nothing is said of {verb}")


def printed(broker, *arguments, status=0):
    found, text = broker.ctl("--json=short", *arguments)
    assert found == status, text
    return json.loads(next(line for line in text.splitlines() if line[0] in "[{"))  # the others are for people


def without(fields, *names):
    return [field for field in fields if field not in names]


def test_fields_are_those_of_the_manual(broker, spawn):
    broker.policy(POLICY).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    handed_over(spawn("dns", 61002), "udp", "ipv4")

    listed, = documented("list")
    tcp, = printed(broker, "list", "web")
    udp, = printed(broker, "list", "dns")
    assert set(tcp) == set(listed) and set(udp) == {*listed, "flows"}

    bindings, = documented("bindings")
    assert [list(row) for row in printed(broker, "bindings")] == [bindings] * 8

    explained = printed(broker, "explain", "tcp", "192.0.2.1", "7000")
    assert [list(explained)] == documented("explain")
    assert list(explained["binding"]) == without(bindings, "lookups", "no_socket")

    broker_fields, policy, _, sockets, capacity, routes, reloads, of_service, errors, stopped = documented("status")
    status = printed(broker, "status")
    assert list(status) == broker_fields and list(status["policy"]) == policy and list(status["sockets"]) == sockets
    assert list(status["capacity"]) == capacity and list(status["reloads"]) == reloads
    assert list(status["routes"]) == routes
    assert [list(row) for row in status["services"]] == [of_service] * 2
    assert list(status["services"][0]["errors"]) == errors

    assert [list(printed(broker, "version"))] == documented("version")
    broker.stop()
    assert list(json.loads(broker.ctl("--json=short", "status")[1].splitlines()[-1])) == stopped


def test_fields_of_answers_about_a_service_are_those_of_the_manual_refused_or_not(broker, spawn):
    broker.policy(POLICY).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    answer = ["service", "result", "errno", "message"]
    for verb in "register", "unregister", "hold", "drain", "undrain":
        fields, = documented(verb)
        assert fields[:4] == answer and fields[4:] == ["warnings"]
    row, = printed(broker, "hold", "web", "--timeout=1s", status=1)
    assert list(row) == answer and row["result"] == "not-held"
    row, = printed(broker, "drain", "web")
    assert list(row) == answer and row["result"] == "ok"
    row, = printed(broker, "drain", "dns", status=1)
    assert list(row) == [*answer, "warnings"] and row["result"] == "ok", "nobody makes routes here"
    row, = printed(broker, "unregister", "web")
    assert list(row) == answer


def test_each_element_of_a_reload_and_of_a_diff_has_the_fields_of_the_manual(broker, spawn):
    broker.policy(POLICY).start()
    cookie = handed_over(spawn("web", 61001), "tcp", "ipv4")
    broker.policy(section("web", 61003, everywhere(), everywhere()))
    listed, bindings = documented("list")[0], documented("bindings")[0]
    of_binding, of_settings, of_socket = documented("diff")
    diagnostic, = documented("reload")
    rows = printed(broker, "diff", status=1)
    assert {row["kind"] for row in rows} == {"binding", "settings", "socket"}
    wanted = {"binding": {*of_binding, *without(bindings, "lookups", "no_socket")},
              "settings": set(of_settings),
              "socket": {*of_socket, *without(listed, "queue", "queue_limit", "drops")}}
    for row in rows:
        assert set(row) == wanted[row["kind"]]

    rows = printed(broker, "reload")
    lost, = [row for row in rows if "kind" in row]
    assert set(lost) == {*wanted["socket"], *diagnostic} and lost["cookie"] == cookie
    assert (lost["file"], lost["line"], lost["severity"]) == ("", 0, "warning")
    assert lost["message"] == f"web loses the tcp socket {lost['bound']}: policy does not admit it any more"
    others = [row for row in rows if "kind" not in row]
    assert others and all(list(row) == diagnostic for row in others), "that bindings stand twice"
