# SPDX-License-Identifier: LGPL-2.1-or-later
"""LocalRoutes= and Announce=: which routes stand when, with the real broker, the real sockbroker-routes and the
kernel."""

import contextlib
import json
import os
import signal

import pytest

from harness import client, namespace, routes
from harness.routes import ANNOUNCE, LOCAL, Talk, record
from harness.until import until
from words import ADDRESS, PORT, PREFIXES, handed_over, listen, section, who

WEB = "".join(listen("tcp", prefix) for prefix in PREFIXES.values())
BOTH = set(PREFIXES.values())


@pytest.fixture(name="maker")
def _maker(broker):
    made = routes.RouteMaker(broker)
    yield made
    made.discard()


@pytest.fixture(name="talk")
def _talk(broker, maker):
    """What a broker says, said by the test."""
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=1000000\n")
    maker.start()
    opened = Talk(maker.path)
    yield opened
    opened.close()


def conf(broker, **keys):
    text = "[Broker]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
    (broker.config / "sockbrokerd.conf").write_text(text)


def begin(broker, maker, *lines, **keys):
    conf(broker, **{"AnnounceUpSec": 0, **keys})
    maker.start()
    broker.policy(section("web", 61001, WEB, *lines)).start()


def announced_is(wanted):
    until(f"announced is {wanted}, not {routes.announced()}", lambda: routes.announced() == set(wanted))


def local_is(wanted):
    until(f"local is {wanted}, not {routes.local()}", lambda: routes.local() == set(wanted))


def told(broker, name="web"):
    return broker.status()[1][name]["announced"]


# Local routes.

def test_local_routes_stand_while_the_policy_has_them_and_packets_arrive_by_them(broker, maker, spawn):
    begin(broker, maker, "LocalRoutes=yes")
    local_is(BOTH)
    web = spawn("web", 61001)
    for family in PREFIXES:
        handed_over(web, "tcp", family)
        assert who("tcp", family) == "web"
    assert broker.status()[0]["routes"] == {"local": 2, "announced": 0, "refused": 0}
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/25"), "LocalRoutes=yes"))
    assert broker.reload()[0] == 0
    local_is({"192.0.2.0/25"})
    broker.policy(section("web", 61001, WEB))
    assert broker.reload()[0] == 0
    local_is(set())


def test_routes_that_others_made_stay_theirs(broker, maker):
    namespace.add_local_routes("192.0.2.0/24")
    begin(broker, maker, "LocalRoutes=yes")
    local_is({PREFIXES["ipv6"]})
    broker.policy(section("web", 61001, WEB))
    assert broker.reload()[0] == 0
    local_is(set())
    shown = namespace.run("ip", "route", "show", "table", "local", "type", "local", "192.0.2.0/24")
    assert "192.0.2.0/24" in shown and "proto 83" not in shown


def test_when_others_take_theirs_away_the_brokers_own_is_made(broker, maker):
    namespace.add_local_routes("192.0.2.0/24")
    begin(broker, maker, "LocalRoutes=yes")
    local_is({PREFIXES["ipv6"]})
    namespace.run("ip", "route", "del", "local", "192.0.2.0/24", "dev", "lo", "table", "local")
    local_is(BOTH)


def test_routes_that_were_flushed_come_back(broker, maker):
    begin(broker, maker, "LocalRoutes=yes")
    local_is(BOTH)
    routes.flush("local")
    local_is(BOTH)
    broker.wait_log(r"somebody has changed local routes of the broker.* made again")
    namespace.run("ip", "link", "set", "lo", "down")
    namespace.run("ip", "link", "set", "lo", "up")
    local_is(BOTH)


def test_a_connected_network_is_never_made_local(broker, maker):
    namespace.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "away")
    namespace.run("ip", "addr", "add", "192.0.2.9/24", "dev", "lan")
    namespace.run("ip", "link", "set", "lan", "up")
    begin(broker, maker, "LocalRoutes=yes")
    local_is({PREFIXES["ipv6"]})
    until("status tells", lambda: broker.status()[0]["routes"]["refused"] == 1)
    assert any("192.0.2.0/24 cannot have a local route: an interface is connected" in one
               for one in broker.status()[0]["warnings"])
    namespace.run("ip", "addr", "del", "192.0.2.9/24", "dev", "lan")
    local_is(BOTH)
    namespace.run("ip", "addr", "add", "192.0.2.130/25", "dev", "lan")
    local_is({PREFIXES["ipv6"]})


def test_routes_outlive_the_broker_and_the_next_one_reconciles(broker, maker):
    begin(broker, maker, "LocalRoutes=yes")
    local_is(BOTH)
    for end in (broker.kill, broker.stop):
        end()
        assert routes.local() == BOTH
        broker.start()
        until("it knows", lambda: broker.status()[0]["routes"]["local"] == 2)
        assert routes.local() == BOTH
    broker.kill()
    broker.policy(section("web", 61001, WEB))
    broker.start()
    local_is(set())


def test_a_route_maker_that_dies_is_spoken_to_again(broker, maker):
    begin(broker, maker, "LocalRoutes=yes")
    local_is(BOTH)
    maker.kill()
    until("status warns", lambda: any("nobody makes the routes" in one for one in broker.status()[0]["warnings"]))
    assert routes.local() == BOTH
    routes.flush("local")
    maker.start()
    local_is(BOTH)
    until("no warning is left", lambda: broker.status()[0]["warnings"] == [])


def test_without_a_route_maker_the_broker_serves_and_says_what_is_missing(broker, spawn):
    broker.policy(section("web", 61001, WEB, "LocalRoutes=yes")).start()
    broker.wait_log(r"nobody makes the routes that policy asks for.*sockbroker-routes\.socket")
    namespace.add_local_routes(*BOTH)
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    assert who("tcp", "ipv4") == "web"


def test_a_million_prefixes_in_batches(broker, talk):
    del broker
    count = 1_000_000 if "SOCKBROKER_LONG" in os.environ else 50_000
    many = [b"\0\40" + (0x0A000000 + i).to_bytes(4, "big") + bytes(12) for i in range(count)]
    report = talk.tell(ANNOUNCE, many)
    assert (report["added"], report["standing"], report["refused"]) == (len(many), len(many), 0)
    report = talk.tell(ANNOUNCE, many[1:], 2)
    assert (report["added"], report["removed"]) == (0, 1)
    report = talk.tell(ANNOUNCE, [], 3)
    assert (report["removed"], report["standing"]) == (len(many) - 1, 0)


# Announcements.

def test_announced_while_a_socket_serves(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    assert told(broker) is False and routes.announced() == set()
    web = spawn("web", 61001)
    handed_over(web, "tcp", "ipv4")
    announced_is(BOTH)
    until("status tells", lambda: told(broker) is True)
    broker.wait_log("web is announced: 2 prefixes in table 153")
    web.kill()
    announced_is(set())
    broker.wait_log("web is not announced any more: no live socket serves tcp over ipv4")
    assert told(broker) is False


def test_all_means_every_protocol_and_family(broker, maker, spawn):
    begin(broker, maker, "Announce=all")
    web = spawn("web", 61001)
    handed_over(web, "tcp", "ipv4")
    until("it was looked at", lambda: broker.status()[1]["web"]["live"] == 1)
    assert told(broker) is False
    handed_over(web, "tcp", "ipv6")
    announced_is(BOTH)
    assert web.control("FDSTOREREMOVE=1\nFDNAME=web").result == "ok"
    announced_is(set())


def test_two_services_of_one_prefix_are_announced_while_both_are_up(broker, maker, spawn):
    conf(broker, AnnounceUpSec=0)
    maker.start()
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24", 80), "Announce=any") +
                  section("dns", 61002, listen("udp", "192.0.2.0/24"), listen("udp", "198.51.100.0/24"),
                          "Announce=any")).start()
    web, dns = spawn("web", 61001), spawn("dns", 61002)
    handed_over(dns, "udp", "ipv4")
    announced_is({"198.51.100.0/24"})
    handed_over(web, "tcp", "ipv4")
    announced_is({"198.51.100.0/24", "192.0.2.0/24"})
    web.kill()
    announced_is({"198.51.100.0/24"})


def test_who_has_not_been_up_for_long_is_not_announced_yet(broker, maker, spawn):
    begin(broker, maker, "Announce=any", AnnounceUpSec="1h")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    until("it was looked at", lambda: broker.status()[1]["web"]["live"] == 1)
    assert told(broker) is False and routes.announced() == set()


def test_who_has_not_been_down_for_long_is_still_announced(broker, maker, spawn):
    begin(broker, maker, "Announce=any", AnnounceDownSec="1h")
    web = spawn("web", 61001)
    handed_over(web, "tcp", "ipv4")
    announced_is(BOTH)
    web.kill()
    until("it was looked at", lambda: broker.status()[1]["web"]["live"] == 0)
    assert told(broker) is True and routes.announced() == BOTH
    assert broker.ctl("drain", "web")[0] == 0
    announced_is(set())  # whatever its time is


def test_drain_withdraws_and_serves_on_and_the_next_broker_knows(broker, maker, spawn):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes")
    web = spawn("web", 61001)
    handed_over(web, "tcp", "ipv4")
    announced_is(BOTH)
    status, said = broker.ctl("drain", "web")
    assert (status, said) == (0, "web is drained: it is not announced, and goes on serving\n")
    assert routes.announced() == set(), "in the kernel when the tool returns"
    assert routes.local() == BOTH and who("tcp", "ipv4") == "web"
    assert broker.status()[1]["web"]["drained"] is True
    assert "drained" in broker.ctl("status", "web")[1]
    for end in (broker.kill, broker.stop):
        end()
        broker.start()
        until("the list was told", lambda: broker.status()[0]["routes"]["local"] == 2)
        assert broker.status()[1]["web"]["drained"] is True and routes.announced() == set()
    assert broker.ctl("undrain", "web")[0] == 0
    announced_is(BOTH)
    assert broker.status()[1]["web"]["drained"] is False
    assert broker.ctl("drain", "nobody")[0] == 1


def test_only_root_drains(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    web = spawn("web", 61001)
    for verb in ("drain", "undrain"):
        assert web.control(f"VERB={verb}\nFDNAME=web").result == "not-root"


def test_unchanged_while_the_broker_is_away_and_reconciled_at_its_start(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    web = spawn("web", 61001)
    handed_over(web, "tcp", "ipv4")
    announced_is(BOTH)
    broker.kill()
    assert routes.announced() == BOTH
    routes.flush(routes.TABLE)
    announced_is(BOTH)  # who makes them needs no broker for that
    broker.start()
    until("it knows", lambda: told(broker) is True)
    assert routes.announced() == BOTH
    broker.kill()
    web.kill()
    assert routes.announced() == BOTH
    broker.start()
    announced_is(set())


def test_withdrawn_by_a_policy_that_has_it_no_more(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    broker.policy(section("web", 61001, WEB))
    assert broker.reload()[0] == 0
    announced_is(set())
    assert told(broker) is None
    broker.wait_log("web is not announced any more: policy does not announce it any more")


def test_withdrawn_before_unload_and_local_routes_stay(broker, maker, spawn):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    assert broker.ctl("unload")[0] == 0
    assert routes.announced() == set() and routes.local() == BOTH


def test_withdrawn_by_an_unload_where_no_broker_runs(broker, maker, spawn):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    broker.stop()
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "unload")
    assert status == 0, said
    assert routes.announced() == set() and routes.local() == BOTH


def test_a_policy_that_no_broker_could_take_withdraws_nothing(broker, maker, spawn):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    broker.kill()
    (broker.state / "policy").unlink()
    broker.policy("nonsense\n").start()
    assert broker.status()[0]["state"] == "degraded"
    assert routes.announced() == BOTH and routes.local() == BOTH


def test_a_table_and_a_number_of_ones_own(broker, maker, spawn):
    begin(broker, maker, "Announce=any", AnnounceTable=1000, RouteProtocol=99 + 1)
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    until("it stands there", lambda: "192.0.2.0/24 proto 100" in namespace.run(
        "ip", "route", "show", "table", "1000") if told(broker) else False)


def test_metrics_and_json_tell_of_routes(broker, maker, spawn):
    begin(broker, maker, "Announce=any", "LocalRoutes=yes")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    until("status tells", lambda: told(broker) is True)
    metrics = broker.ctl("metrics")[1]
    for line in ('sockbroker_service_announced{service="web"} 1', 'sockbroker_routes{kind="announced"} 2',
                 'sockbroker_routes{kind="local"} 2'):
        assert line in metrics
    assert json.loads(broker.ctl("status", "--json=short")[1])["services"][0]["announced"] is True
    assert "2 local, 2 announced" in broker.ctl("status")[1]


# Who has the socket of sockbroker-routes, a broker that was taken over, can do no more than this.

GOOD = "198.51.100.0/24"


def everything():
    return "".join(namespace.run("ip", family, "route", "show", "table", "all") for family in ("-4", "-6"))


@pytest.mark.parametrize("prefix",
                         ["0.0.0.0/0", "0.0.0.0/7", "128.0.0.0/1", "127.0.0.0/8", "127.1.2.3/32", "224.0.0.0/8",
                                    "255.255.255.255/32", "::/0", "2000::/3", "2000::/15", "::1/128", "::/16",
                                    "::ffff:0:0/96", "fe80::/16", "fe80::1/128", "ff02::/16"])
@pytest.mark.parametrize("kind", [LOCAL, ANNOUNCE])
def test_no_route_is_made_that_would_cut_the_machine_off(talk, kind, prefix):
    before = everything()
    report = talk.tell(kind, [prefix])
    assert (report["standing"], report["refused"], report["reason"]) == (0, 1, 1)
    assert everything() == before
    assert talk.tell(kind, [GOOD], 2)["standing"] == 1, "it goes on"


def test_a_network_that_an_interface_is_connected_to_is_refused_with_all_that_cover_it(talk):
    namespace.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "away")
    for address in ("192.0.2.9/24", "10.0.0.1 peer 10.9.9.9/32", "fd01::9/64"):
        namespace.run("ip", "addr", "add", *address.split(), "dev", "lan")
    namespace.run("ip", "link", "set", "lan", "up")
    before = everything()
    for number, prefix in enumerate(("192.0.2.0/24", "192.0.0.0/16", "192.0.0.0/8", "10.9.9.9/32", "10.0.0.0/8",
                                     "fd01::/64", "fd01::/16")):
        report = talk.tell(LOCAL, [prefix], number + 1)
        assert (report["standing"], report["refused"], report["reason"]) == (0, 1, 2), prefix
    assert everything() == before
    assert talk.tell(LOCAL, ["192.0.2.7/32", "fd01::7/128"], 20)["standing"] == 2, "within it is what AnyIP is for"


def test_routes_of_others_are_never_removed(talk):
    namespace.run("ip", "route", "add", "blackhole", "198.51.100.0/24", "table", "153")
    namespace.run("ip", "route", "add", "blackhole", "203.0.113.0/24", "table", "153", "proto", "bird")
    namespace.run("ip", "-6", "route", "add", "blackhole", "2001:db8::/32", "table", "153", "proto", "static")
    namespace.add_local_routes("198.51.100.0/24")
    before = everything()
    for number, prefixes in enumerate((["198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"], [])):
        for kind in (LOCAL, ANNOUNCE):
            talk.tell(kind, prefixes, number + 1)
    assert everything() == before


@pytest.mark.parametrize("words", [
    b"", b"x", bytes(12), record(1, 0, magic=1), record(0, 0), record(4, 0), record(1, 2), record(1, 255),
    record(2, 0, [GOOD]), record(3, 0), record(1, 0) + b"x", record(1, 0, count=1), record(2, 0, [GOOD], count=2),
    record(2, 0, [b"\2" + routes.wire_prefix(GOOD)[1:]]), record(2, 0, [b"\0\41" + bytes(16)]),
    record(2, 0, [b"\0\30" + bytes([198, 51, 100, 1]) + bytes(12)]),
    record(2, 0, [b"\0\30" + bytes([198, 51, 100, 0]) + b"\1" * 12]), bytes(65537), record(2, 0, count=65535)],
    ids=range(19))
def test_what_is_no_word_ends_the_connection_and_changes_nothing(broker, maker, words):
    del broker
    maker.start()
    before = everything()
    sock = Talk(maker.path)
    with contextlib.suppress(OSError):
        sock.send(words)
    if words == b"":  # nothing arrives of it but a record without a byte, which is an end
        sock.close()
    else:
        assert sock.hung_up()
    assert everything() == before
    assert Talk(maker.path).tell(LOCAL, [GOOD])["standing"] == 1, "it goes on"


@pytest.mark.parametrize("records", [
    [record(1, 0), record(2, 0, ["198.51.100.0/24", "198.51.100.0/24"])],
    [record(1, 0), record(2, 0, ["203.0.113.0/24", "198.51.100.0/24"])],
    [record(1, 0), record(2, 0, ["203.0.113.0/24"]), record(2, 0, ["198.51.100.0/24"])],
    [record(1, 0), record(2, 1, [GOOD])], [record(1, 0), record(3, 1)],
    [record(1, 0), record(2, 0, [GOOD]), record(2, 1, [GOOD])]], ids=range(6))
def test_lists_out_of_order_end_the_connection_and_change_nothing(talk, records):
    before = everything()
    for one in records:
        talk.send(one)
    assert talk.hung_up() and everything() == before


def test_a_list_that_is_longer_than_any_policy_is_refused(broker, maker):
    conf(broker, MaxBindings=10)
    maker.start()
    talk = Talk(maker.path)
    talk.send(record(1, 0))
    talk.send(record(2, 0, [f"10.0.0.{i}/32" for i in range(11)]))
    assert talk.hung_up() and routes.local() == set()


def test_a_list_that_is_cut_short_counts_for_nothing(talk, maker):
    talk.send(record(1, 0))
    talk.send(record(2, 0, [GOOD]))
    talk.close()
    again = Talk(maker.path)
    assert again.tell(ANNOUNCE, [GOOD])["standing"] == 1
    assert routes.local() == set()


def test_nobody_but_the_owner_of_the_socket_may_speak(broker, maker, spawn):
    del broker
    maker.start()
    assert os.stat(maker.path).st_mode & 0o777 == 0o600
    with pytest.raises(Exception, match="Permission denied"):
        spawn("web", 61001).connect_unix(maker.path)


def test_it_has_one_capability_and_its_filter_is_on(maker, broker):
    del broker
    maker.start()
    until("it has given up the rest", lambda: "Seccomp:\t2" in open(f"/proc/{maker.process.pid}/status",
                                                                    encoding="ascii").read())
    with open(f"/proc/{maker.process.pid}/status", encoding="ascii") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    net_admin = f"{1 << 12:016x}"
    assert (fields["CapPrm"], fields["CapEff"], fields["CapInh"], fields["CapAmb"]) == (
        net_admin, net_admin, "0" * 16, "0" * 16)
    assert fields["NoNewPrivs"] == "1"
    maker.process.send_signal(signal.SIGTERM)
    assert maker.process.wait(10) == -signal.SIGTERM


def test_an_unload_withdraws_also_where_no_policy_could_be_taken(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    broker.kill()
    (broker.state / "policy").unlink()
    broker.policy("nonsense\n").start()
    assert broker.ctl("unload")[0] == 0
    assert routes.announced() == set()
