# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing that works stops because the control plane changes or stops: rows S7 and S8, restart, kill -9, hand-over."""

import signal

import pytest

from harness import broker as broker_module
from harness import client, namespace
from words import ADDRESS, PORT, add_routes, each_family, each_protocol, everywhere, handed_over, listen, open_socket
from words import refused, section, who

TARGETS = [(protocol, address, PORT) for protocol in ("tcp", "udp") for address in ADDRESS.values()]


def serve_everywhere(one, **options):
    for protocol in ("tcp", "udp"):
        for family in ("ipv4", "ipv6"):
            handed_over(one, protocol, family, **options)


@each_family
def test_s7_an_established_connection_goes_on_through_every_change(broker, spawn, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    old, new = spawn("web"), spawn("web-two")
    handed_over(old, "tcp", family)
    connection = client.Connection(ADDRESS[family], PORT)
    assert connection.echo("registered") == "web: registered"

    handed_over(new, "tcp", family, service="web")
    assert who("tcp", family) == "web-two"
    assert connection.echo("replaced") == "web: replaced"

    old.close(f"tcp-{family}")
    assert connection.echo("the old listener is closed") == "web: the old listener is closed"

    broker.policy(section("web", 61001, listen("tcp", "198.51.100.0/24")))
    assert broker.reload()[0] == 0
    with refused():
        who("tcp", family)
    assert connection.echo("the binding is gone") == "web: the binding is gone"

    broker.policy("")
    assert broker.reload()[0] == 0
    assert broker.list() == []
    assert connection.echo("the service is gone") == "web: the service is gone"

    broker.stop()
    assert connection.echo("the broker is gone") == "web: the broker is gone"


@each_family
def test_s7_an_established_connection_survives_unload(broker, spawn, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", family)
    connection = client.Connection(ADDRESS[family], PORT)
    status, output = broker.ctl("unload")
    assert status == 0, output
    with refused():
        who("tcp", family)
    assert connection.echo("unloaded") == "web: unloaded"


@each_family
def test_s8_works_when_every_handshake_is_a_syn_cookie(broker, spawn, remote, family):
    add_routes()
    namespace.sysctl("net/ipv4/tcp_syncookies", 2)
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", family)
    before = cookies_received()
    for host in range(1, 21):
        address = ADDRESS[family][:-1] + str(host)
        assert client.tcp_ask(address, PORT).local == (address, PORT)
        assert remote.ask("tcp", address, PORT).name == "web"
    assert cookies_received() - before >= 40, "the handshakes were completed by cookies"


def cookies_received():
    """TcpExt SyncookiesRecv of this network namespace."""
    with open("/proc/net/netstat", encoding="ascii") as counters:
        names, values = [line.split() for line in counters if line.startswith("TcpExt:")]
    return int(values[names.index("SyncookiesRecv")])


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_clients_notice_nothing_while_the_broker_is_gone_and_comes_back(broker, spawn, clients, how):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    serve_everywhere(spawn("web"))
    before = broker.snapshot()
    asking = [clients(TARGETS) for _ in range(2)]
    for _ in range(5):
        getattr(broker, how)()
        for one in asking:
            one.more(40)
        broker.start()
        assert broker.snapshot() == before, "it took up what the kernel held"
        for one in asking:
            one.more(40)
    for one in asking:
        answers, failures = one.end()
        assert failures == []
        assert set(answers) == {"web"} and answers["web"] >= 400


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_new_broker_goes_on_from_where_the_old_one_was(broker, spawn, how):
    """Replace, remove, refuse and reload work on sockets that an earlier broker has installed."""
    add_routes()
    broker.policy(section("web", 61001, everywhere()) + section("other", 61002, listen("tcp", "198.51.100.0/24")))
    broker.start()
    first = spawn("web")
    serve_everywhere(first)
    getattr(broker, how)()
    broker.start()

    second = spawn("web-two")
    handed_over(second, "tcp", "ipv4", service="web")
    assert who("tcp", "ipv4") == "web-two"
    assert who("tcp", "ipv6") == "web"
    assert spawn("other", 61002).control("FDSTOREREMOVE=1\nFDNAME=web").result == "not-permitted"
    second.kill()
    assert who("tcp", "ipv4") == "web", "the displaced socket serves again"
    assert first.control("FDSTOREREMOVE=1\nFDNAME=web").result == "ok"
    assert broker.list() == []
    with refused():
        who("udp", "ipv6")


def test_a_service_that_died_while_the_broker_was_gone_is_forgotten(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere()) + section("dns", 61002, listen("udp", "192.0.2.0/24", 5353)))
    broker.start()
    web, dns = spawn("web"), spawn("dns", 61002)
    serve_everywhere(web)
    handed_over(dns, "udp", "ipv4", port=5353)
    broker.kill()
    web.kill()
    with refused():
        who("tcp", "ipv4")
    with refused():
        who("udp", "ipv6")
    broker.start()
    assert [line["service"] for line in broker.list()] == ["dns"]
    assert who("udp", "ipv4", 5353) == "dns"


def test_messages_wait_in_the_socket_unit_while_no_broker_runs(netns, spawn):  # pylint: disable=unused-argument
    """With passed sockets, as systemd has them."""
    add_routes()
    broker = broker_module.Broker(activated=True)
    try:
        broker.policy(section("web", 61001, everywhere())).start()
        broker.stop()
        web = spawn("web")
        open_socket(web, "tcp", "ipv4")
        web.notify("FDSTORE=1\nFDNAME=web", "tcp-ipv4")
        assert broker.process.poll() is not None
        broker.start()
        broker.ask("VERB=version")
        web.notify_and_wait("READY=1")
        assert who("tcp", "ipv4") == "web"
        assert [line["uid"] for line in broker.list()] == [61001]
    finally:
        broker.discard()
        print(broker.log())


def test_a_policy_that_is_wrong_at_start_leaves_the_rules_that_stand(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    serve_everywhere(spawn("web"))
    before = broker.snapshot()
    broker.stop()
    broker.policy("[Service web]\nUser=61001\nListenStrem=192.0.2.0/24:7000\n")
    broker.start()
    broker_line, _ = broker.status()
    assert broker_line["state"] == "degraded"
    broker.wait_log(r"50-test\.conf:3")
    assert broker_line["reason"]
    assert broker.list() and [line for line in broker.ask("VERB=bindings").lines if line["service"] == "web"]
    for protocol, address, port in TARGETS:
        assert client.ask(protocol, address, port).name == "web"
    broker.policy(section("web", 61001, everywhere()))
    assert broker.reload()[0] == 0
    assert broker.status()[0]["state"] == "running"
    assert broker.snapshot() == before


def test_a_policy_that_is_wrong_after_a_boot_is_replaced_by_the_one_last_taken(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    bindings = broker.ask("VERB=bindings").lines
    assert broker.ctl("unload")[0] == 0  # nothing is left in the kernel, as after a boot
    broker.process.wait(25)
    broker.policy("rubbish\n").start()
    assert broker.status()[0]["state"] == "degraded"
    assert broker.ask("VERB=bindings").lines == bindings
    serve_everywhere(spawn("web"))
    assert who("udp", "ipv6") == "web"


def test_sighup_reloads_and_a_policy_that_is_wrong_leaves_the_running_one(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/24"))).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    broker.policy("[Service web]\nUser=61001\nNonsense=1\n")
    broker.process.send_signal(signal.SIGHUP)
    broker.wait_log("policy refused, 1 error, the running policy stays")
    assert who("tcp", "ipv4") == "web"
    assert broker.status()[0]["state"] == "degraded"
    broker.policy(section("web", 61001, listen("tcp", "192.0.2.0/25")))
    broker.process.send_signal(signal.SIGHUP)
    broker.wait_log("reload: policy taken")
    assert [line["prefix"] for line in broker.ask("VERB=bindings").lines] == ["192.0.2.0/25"]
    assert broker.status()[0]["state"] == "running"


def test_a_reload_keeps_what_stays_and_takes_away_the_rest(broker, spawn):
    add_routes()
    web = section("web", 61001, listen("tcp", "192.0.2.0/24"))
    broker.policy(web + section("dns", 61002, listen("udp", "192.0.2.0/24"))
                  + section("mail", 61003, listen("tcp", "192.0.2.0/24", 25))).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    handed_over(spawn("dns", 61002), "udp", "ipv4")
    handed_over(spawn("mail", 61003), "tcp", "ipv4")
    kept = [line for line in broker.list() if line["service"] == "web"]
    who("tcp", "ipv4")
    counted = broker.status()[1]["web"]["assigned"]
    assert counted >= 1
    # dns now belongs to somebody else, mail is gone.
    broker.policy(web + section("dns", 61009, listen("udp", "192.0.2.0/24")))
    status, output = broker.reload()
    assert status == 0, output
    assert broker.list() == kept
    assert broker.status()[1]["web"]["assigned"] == counted, "counters stay"
    assert who("tcp", "ipv4") == "web"
    with refused():
        who("udp", "ipv4")
    with refused():
        who("tcp", "ipv4", 25)


@each_protocol
@each_family
def test_a_reload_in_the_midst_of_clients_fails_none_of_them(broker, spawn, clients, protocol, family):
    add_routes()
    mine = section("web", 61001, everywhere())
    broker.policy(mine).start()
    handed_over(spawn("web"), protocol, family)
    asking = clients([(protocol, ADDRESS[family], PORT)])
    for i in range(20):
        # Narrower and wider bindings beside those that serve, in changing numbers.
        broker.policy(mine + section("more", 61002, *[listen(protocol, f"198.51.{j}.0/24", 1 + i) for j in range(i)]))
        assert broker.reload()[0] == 0
    asking.more(10)
    answers, failures = asking.end()
    assert failures == [] and set(answers) == {"web"}


@each_family
def test_a_hand_over_in_the_midst_of_clients_fails_none_of_them(broker, spawn, clients, family):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    asking = clients([("tcp", ADDRESS[family], PORT), ("udp", ADDRESS[family], PORT)])
    current = None
    failures_before = 0
    for i in range(6):
        new = spawn(f"web-{i}")
        for protocol in ("tcp", "udp"):
            handed_over(new, protocol, family, service="web", reuseport=True)
        asking.until(f"web-{i}")
        if current is None:
            failures_before = asking.failure_count()  # until somebody served
        else:
            current.kill()  # nothing waits in its queues: the clients are answered by the new one
        current = new
    _, failures = asking.end()
    assert len(failures) == failures_before
