# SPDX-License-Identifier: LGPL-2.1-or-later
"""LocalRoutes= and Announce=: which routes stand when, with the real broker, the real sockbroker-routes and the
kernel."""

import json
import os

import pytest

from harness import namespace, routes
from harness.routes import ANNOUNCE
from harness.until import until
from routing import BOTH, WEB, announced_is, begin, conf, local_is, told
from words import PREFIXES, handed_over, listen, section, who


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


def test_a_limit_that_was_raised_holds_for_routes_once_the_broker_was_restarted(broker, maker):
    begin(broker, maker, "LocalRoutes=yes", MaxBindings=2)
    local_is(BOTH)
    broker.stop()
    conf(broker, MaxBindings=100)
    many = [f"192.0.2.{i}/32" for i in range(20)]
    broker.policy(section("web", 61001, *(listen("tcp", prefix) for prefix in many), "LocalRoutes=yes")).start()
    local_is(many)


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


def test_all_does_not_wait_for_a_family_without_clients_which_is_not_announced(broker, maker, spawn):
    begin(broker, maker, "Announce=all", "Source=203.0.113.0/24")
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is({"192.0.2.0/24"})


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


@pytest.mark.parametrize("word", ["drain", "undrain"])
def test_a_broker_that_cannot_read_what_was_drained_says_so_until_it_is_on_record_anew(broker, maker, word):
    begin(broker, maker, "Announce=any")
    assert broker.ctl("drain", "web")[0] == 0
    broker.kill()
    record = broker.state / "routes"
    record.unlink()
    record.mkdir()  # as an error of the disk, or a link to nowhere
    broker.start()
    [warning] = broker.status()[0]["warnings"]
    assert "which services were drained is lost" in warning and str(record) in warning
    broker.wait_log("which services were drained is lost")
    record.rmdir()
    assert broker.ctl(word, "web")[0] == 0
    status, services = broker.status()
    assert status["warnings"] == [] and services["web"]["drained"] is (word == "drain")


def test_a_drain_that_the_kernel_has_not_followed_is_a_failure(broker, maker, spawn):
    begin(broker, maker, "Announce=any")
    broker.policy(section("quiet", 61009, "ListenStream=10.0.0.1:80"), "60-quiet.conf").reload()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    announced_is(BOTH)
    maker.kill()
    broker.wait_log("nobody makes the routes")
    for verb, words in ("drain", "web is drained, but its routes"), ("undrain", "web is not drained any more, but its"):
        status, said = broker.ctl(verb, "web")
        assert status == 1 and words in said and "systemctl enable --now sockbroker-routes.socket" in said, said
        assert routes.announced() == BOTH
        # Policy announces nothing for it, so that there is nothing to follow.
        status, said = broker.ctl(verb, "quiet")
        assert status == 0 and "warning" not in said
    broker.ctl("drain", "web")
    maker.start()
    announced_is(set())
    assert broker.ctl("drain", "web") == (0, "web is drained: it is not announced, and goes on serving\n")


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
