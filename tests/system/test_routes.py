# SPDX-License-Identifier: LGPL-2.1-or-later
"""Routes under the installed units: sockbroker-routes is started when a policy first asks, inside its sandbox, and a
service is announced by the state of its unit."""

# A prefix for which the machine of the tests has no local route yet.
OWN = "100.64.7.0/24"
ASKS = f"LocalRoutes=yes\nAnnounce=any\nListenStream={OWN}:8080\n"


def shown(broker, *words):
    """Prefixes of the broker's routes, IPv4."""
    # A table that nobody has made is an error, and empty.
    lines = broker.run(f"ip route show {' '.join(words)} proto 83", check=False).stdout.splitlines()
    return {line.split()[1] for line in lines}


def announced(broker):
    return shown(broker, "table", "153")


def begin(broker, name):
    """The example, with routes asked for."""
    broker.run("systemctl start sockbroker-routes.socket")
    broker.example(name, f"{name}.service",
                   *([f"{name}.socket", f"{name}-register.service"] if name == "resolver" else []))
    text = broker.out(f"cat /etc/sockbroker/conf.d/{name}.conf")
    broker.policy(f"{name}.conf", text.rstrip("\n") + "\n" + ASKS)


def end(broker):
    broker.run("rm -f /etc/sockbroker/conf.d/*.conf; systemctl reload sockbrokerd", check=False)
    broker.until("nothing stands", lambda: announced(broker) == set())
    broker.run("systemctl stop sockbroker-routes.socket sockbroker-routes.service", check=False)


def test_the_unit_is_started_by_the_first_policy_that_asks_and_ends_with_the_last(broker):
    begin(broker, "hello")
    try:
        # A broker that comes after one which had routes asks it once, for what may be left.
        broker.until("nothing asks", lambda: broker.show("sockbroker-routes.service", "ActiveState") == "inactive")
        broker.run("systemctl reload sockbrokerd")
        broker.until("a local route", lambda: shown(broker, "table", "local") == {OWN})
        assert broker.show("sockbroker-routes.service", "ActiveState") == "active"
        broker.run("systemctl start hello.service")
        broker.until("it is announced", lambda: OWN in announced(broker))
        broker.run("systemctl stop hello.service")
        broker.until("it is withdrawn", lambda: announced(broker) == set())
        assert shown(broker, "table", "local") == {OWN}
        broker.run("systemctl start hello.service")
        broker.until("it is announced", lambda: OWN in announced(broker))
        # Both sides end and come back; the kernel has the routes all the while.
        broker.run("systemctl restart sockbrokerd.service")
        assert OWN in announced(broker)
        broker.run("systemctl kill -s KILL sockbroker-routes.service")
        assert OWN in announced(broker)
        broker.until("it is back", lambda: broker.status()["warnings"] == [] and
                     broker.status()["routes"]["announced"] > 0)
    finally:
        end(broker)
    broker.until("it has ended", lambda: broker.show("sockbroker-routes.service", "ActiveState") == "inactive")
    assert broker.show("sockbroker-routes.service", "Result") == "success"
    score = broker.out("systemd-analyze security sockbroker-routes.service --no-pager | tail -1")
    assert float(score.split(":")[1].split()[0]) <= 1.4, score


def test_of_a_socket_unit_it_is_the_service_that_counts(broker):
    begin(broker, "resolver")
    try:
        broker.run("systemctl start resolver.socket resolver-register.service && systemctl reload sockbrokerd")
        broker.until("its sockets live", lambda: broker.registered("resolver"))
        assert announced(broker) == set(), "PID 1 has the sockets, and nobody serves"
        broker.run("systemctl start resolver.service")
        broker.until("it is announced", lambda: announced(broker))
        broker.run("systemctl stop resolver.service")
        broker.until("it is withdrawn", lambda: announced(broker) == set())
        assert broker.registered("resolver"), "though its sockets are there"
    finally:
        end(broker)
