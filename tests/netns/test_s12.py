# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S12 of the talk: source prefixes and the ingress interface decide. Real packets of several hosts, each behind an
interface of its own, with addresses of their own."""

import itertools
import time

import pytest

from harness import client, hosts, namespace
from words import ADDRESS, PORT, PREFIXES, add_routes, everywhere, listen, open_socket

NEAR = {"ipv4": "203.0.113.5", "ipv6": "2001:db8:77::5"}
NEARER = {"ipv4": "203.0.113.70", "ipv6": "2001:db8:77:1::70"}
FAR = {"ipv4": "198.51.100.9", "ipv6": "2001:db8:99::9"}
OTHER = {"ipv4": "10.10.0.1", "ipv6": "fd10::1"}
SOURCE_NEAR = "Source=203.0.113.0/24 2001:db8:77::/48\n"
SOURCE_NEARER = "Source=203.0.113.64/26 2001:db8:77:1::/64\n"
SOURCE_FAR = "Source=198.51.100.0/24 2001:db8:99::/48\n"
EACH = list(itertools.product(("tcp", "udp"), ("ipv4", "ipv6")))


@pytest.fixture(name="hosts")
def _hosts(netns):  # pylint: disable=unused-argument
    made = hosts.Hosts()
    yield made
    made.kill()


def everyone():
    return [each[family] for each in (NEAR, NEARER, FAR, OTHER) for family in each]


@pytest.fixture(name="serve")
def _serve(broker, spawn):
    """serve(name, lines): a section of the policy and its service, with a TCP and a UDP socket for both families."""
    sections, services = {}, {}

    def serve(name, lines):
        sections[name] = f"[Service {name}]\nUser={61001 + len(sections)}\n{lines}"
        broker.policy("".join(sections.values()))
        if broker.process is None:
            broker.start()
        else:
            assert broker.reload()[0] == 0
        services[name] = spawn(name, 61000 + len(sections))
        for protocol in ("tcp", "udp"):
            services[name].open(protocol, protocol, f"127.0.0.{1 + len(sections)}", PORT, dual=True)
        assert services[name].register("tcp", "udp").result == "ok"
        return services[name]

    add_routes()
    return serve


def answerers(host, source):
    """Who answers this address, over both protocols and families; None: refused."""
    found = set()
    for protocol, family in EACH:
        try:
            found.add(host.ask_from(source[family], protocol, ADDRESS[family], PORT))
        except ConnectionRefusedError:
            found.add(None)
    return found


def answers(host, source):
    """The one who answers over both protocols and families."""
    found = answerers(host, source)
    assert len(found) == 1, found
    return found.pop()


def answers_soon(host, source, expected):
    """The broker follows interfaces by itself; there is nothing to wait for but the answer."""
    deadline = time.monotonic() + 25
    while True:
        found = answerers(host, source)
        if found == {expected} or time.monotonic() > deadline:
            assert found == {expected}
            return


def test_s12_source_prefixes_decide_between_services_of_one_binding(serve, hosts):
    host = hosts.add("in", *everyone())
    serve("near", everywhere() + SOURCE_NEAR)
    serve("far", everywhere() + SOURCE_FAR)
    assert answers(host, NEAR) == answers(host, NEARER) == "near"
    assert answers(host, FAR) == "far"


def test_s12_an_unmatched_client_goes_to_the_next_binding_then_to_the_ordinary_look_up(serve, hosts, spawn):
    host = hosts.add("in", *everyone())
    serve("near", everywhere() + SOURCE_NEAR)
    assert answers(host, OTHER) is None, "nobody listens there"
    ordinary = spawn("ordinary", 61100)
    for protocol, family in EACH:
        open_socket(ordinary, protocol, family, address=ADDRESS[family], port=PORT, freebind=True)
    assert answers(host, OTHER) == "ordinary"
    assert answers(host, NEAR) == "near"
    serve("rest", "".join(listen(protocol, prefix, "*") for protocol in ("tcp", "udp")
                          for prefix in ("192.0.0.0/16", "2001:db8::/48")))
    assert answers(host, OTHER) == answers(host, FAR) == "rest", "the next is of a shorter prefix and any port"
    assert answers(host, NEAR) == "near"


def test_s12_the_longest_source_decides(serve, hosts):
    host = hosts.add("in", *everyone())
    serve("any", everywhere())
    serve("near", everywhere() + SOURCE_NEAR)
    serve("nearer", everywhere() + SOURCE_NEARER)
    assert answers(host, NEAR) == "near"
    assert answers(host, NEARER) == "nearer"
    assert answers(host, FAR) == "any"


def test_s12_ports_and_prefix_go_before_the_source(serve, hosts):
    host = hosts.add("in", *everyone())
    serve("near", everywhere("6000-8000") + SOURCE_NEARER)
    assert answers(host, NEARER) == "near"
    serve("port", everywhere())
    assert answers(host, NEARER) == "port", "one port before a range, whatever the source"


def test_s12_the_ingress_interface_decides(serve, hosts):
    left, right, middle = hosts.add("left", *everyone()), hosts.add("right"), hosts.add("middle")
    serve("l", everywhere() + "Interface=left\n")
    serve("r", everywhere() + "Interface=right other\n")
    own = [{"ipv4": f"10.9.{n}.2", "ipv6": f"fd09:{n}::2"} for n in (1, 2, 3)]
    assert answers(left, NEAR) == answers(left, own[0]) == "l"
    assert answers(right, own[1]) == "r"
    assert answers(middle, own[2]) is None, "no binding is for what comes in there"
    serve("any", everywhere())
    assert answers(left, NEAR) == "l", "a named interface goes before any"
    assert answers(middle, own[2]) == "any"


def test_s12_a_longer_source_goes_before_a_named_interface(serve, hosts):
    host = hosts.add("in", *everyone())
    serve("there", everywhere() + "Interface=in\n")
    serve("near", everywhere() + SOURCE_NEAR)
    assert answers(host, NEAR) == "near"
    assert answers(host, FAR) == "there"
    serve("both", everywhere() + SOURCE_NEAR + "Interface=in\n")
    assert answers(host, NEAR) == "both"


def test_s12_packets_of_the_machine_itself_come_in_by_lo(serve, hosts):
    host = hosts.add("in", *everyone())
    serve("inner", everywhere() + "Interface=lo\n")
    serve("outer", everywhere() + "Interface=in\n")
    for protocol, family in EACH:
        assert client.ask(protocol, ADDRESS[family], PORT, source=None).name == "inner"
    assert answers(host, NEAR) == "outer"


def test_s12_a_canary_gets_its_share_and_its_end_is_noticed_by_nobody(serve, hosts):
    host = hosts.add("in", *everyone())
    serve("stable", everywhere())
    canary = serve("canary", everywhere() + SOURCE_NEAR + "WhenAbsent=next\n")
    assert answers(host, NEAR) == "canary"
    assert answers(host, FAR) == "stable"
    canary.close("tcp")
    canary.close("udp")
    for _ in range(5):
        assert answers(host, NEAR) == "stable"


def test_s12_without_next_the_end_of_the_more_specific_service_is_a_refusal(serve, hosts):
    host = hosts.add("in", *everyone())
    serve("stable", everywhere())
    serve("strict", everywhere() + SOURCE_NEAR).kill()
    assert answers(host, NEAR) is None
    assert answers(host, FAR) == "stable"


def test_s12_a_change_of_sources_is_a_reload(broker, serve, hosts):
    host = hosts.add("in", *everyone())
    serve("stable", everywhere())
    serve("canary", everywhere() + SOURCE_NEAR)
    assert answers(host, FAR) == "stable"
    broker.policy((broker.config / "conf.d/50-test.conf").read_text() + SOURCE_FAR)
    assert broker.reload()[0] == 0
    assert answers(host, FAR) == answers(host, NEAR) == "canary"
    assert {(line["prefix"], line["source"]) for line in broker.ask("VERB=bindings").lines
            if line["service"] == "canary"} == {
                (PREFIXES["ipv4"], "203.0.113.0/24"), (PREFIXES["ipv4"], "198.51.100.0/24"),
                (PREFIXES["ipv6"], "2001:db8:77::/48"), (PREFIXES["ipv6"], "2001:db8:99::/48")}


def test_s12_a_family_without_clients_wants_no_socket(broker, spawn):
    broker.policy("[Service web]\nUser=61001\n" + everywhere() + "Source=203.0.113.0/24\n").start()
    web = spawn("web", 61001)
    for protocol, family in EACH:
        label = open_socket(web, protocol, family)
        reply = web.register(label, service="web")
        if family == "ipv4":
            assert (reply.result, reply.warnings) == ("ok", []), reply
        else:
            assert reply.result == "wrong-socket" and "web has Source= for IPv4 only" in reply.message, reply
    broker.policy("[Service web]\nUser=61001\n" + everywhere())
    assert broker.reload()[0] == 0
    for protocol in ("tcp", "udp"):
        assert web.register(f"{protocol}-ipv6", service="web").result == "ok"
    broker.policy("[Service web]\nUser=61001\n" + everywhere() + "Source=203.0.113.0/24\n")
    assert broker.reload()[0] == 0
    assert {row["family"] for row in broker.list()} == {"ipv4"}


def test_s12_an_interface_that_is_not_there_is_a_warning_and_counts_once_it_comes(broker, serve, hosts):
    first = hosts.add("first", *everyone())
    serve("late", everywhere() + "Interface=late\n")
    serve("rest", everywhere())
    status, said = broker.reload()
    assert status == 0 and "Interface=: late does not exist on this host (yet), so it matches nobody" in said
    status, said = broker.ctl("--config-dir", str(broker.config), "verify")
    assert status == 0 and "late does not exist on this host (yet)" in said
    late = {"ipv4": "10.9.2.2", "ipv6": "fd09:2::2"}
    assert answers(first, NEAR) == "rest"
    host = hosts.add("late")
    answers_soon(host, late, "late")
    assert answers(first, NEAR) == "rest"
    broker.wait_log("rules follow a change of interfaces: late has index")

    # Renamed, it is another one; one that takes the name is it from then on.
    namespace.run("ip", "link", "set", "late", "down")
    namespace.run("ip", "link", "set", "late", "name", "early")
    namespace.run("ip", "link", "set", "early", "up")
    namespace.run("ip", "addr", "replace", "fd09:2::1/64", "dev", "early", "nodad")
    answers_soon(host, late, "rest")
    hosts.add("late")
    answers_soon(host, late, "rest")
    assert broker.ask("VERB=status").lines[0]["state"] == "running"


def test_s12_another_name_of_an_interface_does_not_count(broker, serve, hosts):
    """Or the validity of a policy would depend on the host: two names may be one interface."""
    host = hosts.add("in", *everyone())
    namespace.run("ip", "link", "property", "add", "dev", "in", "altname", "another")
    serve("name", everywhere() + "Interface=in\n")
    serve("altname", everywhere() + "Interface=another\n")
    assert "Interface=: another does not exist on this host" in broker.reload()[1]
    assert answers(host, NEAR) == "name"


def test_s12_the_rules_stay_while_no_broker_runs_and_interfaces_are_looked_up_at_its_start(broker, serve, hosts):
    host = hosts.add("in", *everyone())
    serve("near", everywhere() + SOURCE_NEAR + "Interface=in later\n")
    serve("rest", everywhere())
    broker.kill()
    assert answers(host, NEAR) == "near"
    later = hosts.add("later")
    own = {"ipv4": "10.9.2.2", "ipv6": "fd09:2::2"}
    assert answers(later, own) == "rest"
    broker.start()
    assert answers(host, NEAR) == "near"
    assert answers(later, own) == "rest", "its source is another one"
    assert {line["interface"] for line in broker.ask("VERB=bindings").lines if line["service"] == "near"} == {
        "in", "later"}


def test_s12_interfaces_that_come_and_go_all_the_time_cost_little(broker, serve, hosts):
    """Events are put together; the broker answers meanwhile, and the end is what counts."""
    host = hosts.add("in", *everyone())
    serve("there", everywhere() + "Interface=in flap\n")
    used = sum(map(int, open(f"/proc/{broker.process.pid}/stat", encoding="ascii").read().split()[13:15]))
    for _ in range(5):
        namespace.run("ip", "-batch", "-", text="link add flap type veth peer name flop\nlink del flap\n" * 20)
        assert broker.ask("VERB=version").result == "ok"
    assert answers(host, NEAR) == "there"
    used = sum(map(int, open(f"/proc/{broker.process.pid}/stat", encoding="ascii").read().split()[13:15])) - used
    assert used < 100, "ticks of 10 ms"
    assert broker.log().count("rules follow a change") < 100
