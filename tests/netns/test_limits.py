# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits of sockbrokerd.conf that are raised while sockets live."""

import pytest

from words import ADDRESS, PORT, add_routes, everywhere, handed_over, listen, open_socket, section, who


def limits(broker, **settings):
    lines = "".join(f"{key}={value}\n" for key, value in settings.items())
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\n" + lines)


def test_a_refusal_over_a_limit_names_it_and_raising_it_takes_live_sockets_along(broker, spawn, clients):
    add_routes()
    limits(broker, MaxBindings=4, MaxServices=1, MaxSockets=2)
    broker.policy(section("web", 61001, everywhere())).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    handed_over(one, "udp", "ipv6")
    open_socket(one, "udp", "ipv4")
    reply = one.register("udp-ipv4")
    assert reply.result == "quota"
    assert "raise MaxSockets= in sockbrokerd.conf and restart sockbrokerd" in reply.message

    broker.policy(section("web", 61001, everywhere())
                  + section("more", 61001, listen("tcp", "198.51.100.0/24", "1-90")))
    status, output = broker.reload()
    assert status != 0
    assert "5 bindings (ports alone count twice, once a family) are more than MaxBindings=4 allows" in output
    assert "2 services are more than MaxServices=1 allows" in output

    traffic = clients([("tcp", ADDRESS["ipv4"], PORT), ("udp", ADDRESS["ipv6"], PORT)])
    traffic.more(20)
    limits(broker, MaxBindings=100000, MaxServices=50, MaxSockets=500)
    broker.stop()
    broker.start()
    traffic.more(200)
    answers, failures = traffic.end()
    assert failures == []
    assert set(answers) == {"web"}

    assert broker.status()[0]["state"] == "running"
    assert broker.status()[0]["capacity"] == {"bindings": 100000, "services": 50, "sockets": 500}
    assert len(broker.ask("VERB=bindings").lines) == 5
    assert len(broker.list()) == 2
    assert one.register("udp-ipv4").result == "ok"
    assert who("udp", "ipv4") == "web"


@pytest.mark.parametrize("lines", [[], ["Handover=share"], ["HoldSec=30"]])
def test_a_socket_that_serves_is_registered_again_where_every_place_is_taken(broker, spawn, lines):
    """As a reload of a service does; it needs no place beside its own. What has none is refused as before."""
    add_routes()
    limits(broker, MaxSockets=2)
    broker.policy(section("web", 61001, everywhere(), *lines)).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    handed_over(one, "udp", "ipv6")
    before = broker.list()
    assert [one.register(label).result for label in ("tcp-ipv4", "udp-ipv6", "tcp-ipv4")] == ["ok"] * 3
    assert one.register("tcp-ipv4", "udp-ipv6").result == "ok"
    open_socket(one, "udp", "ipv4")
    assert one.register("tcp-ipv4", "udp-ipv4").result == "quota"
    assert broker.list() == before
    assert who("tcp", "ipv4") == who("udp", "ipv6") == "web"


def test_whatever_runs_now_a_policy_within_the_limits_replaces_it(broker):
    """Every service and every counted binding is another one, several times over."""
    limits(broker, MaxServices=8, MaxBindings=8, MaxAccountedBindings=8)

    def named(letter):
        return "".join(section(f"{letter}{i}", 61001, "Accounting=binding", listen("tcp", f"10.{ord(letter)}.{i}.0/24"))
                       for i in range(8))

    broker.policy(named("a")).start()
    for round_, letter in enumerate("bcdefgh"):
        broker.policy(named(letter))
        assert broker.reload() == (0, "")
        assert {line["service"] for line in broker.ask("VERB=bindings").lines} == {f"{letter}{i}" for i in range(8)}
        if round_ == 3:
            broker.stop()
            broker.start()
            assert broker.status()[0]["state"] == "running"


@pytest.mark.parametrize("key, value, what", [
    ("MaxBindings", 2, "3 bindings (ports alone count twice, once a family)"),
    ("MaxServices", 2, "3 services"),
    ("MaxAccountedBindings", 2, "3 bindings of services with Accounting=binding"),
])
def test_a_limit_that_was_raised_says_that_a_restart_is_needed(broker, key, value, what):
    limits(broker, **{key: value})
    broker.start()
    many = "".join(section(name, 61001, "Accounting=binding", listen("tcp", f"10.0.{i}.0/24"))
                   for i, name in enumerate("abc"))
    broker.policy(many)
    place = f"{broker.config}/conf.d/50-test.conf:{9 if key == 'MaxServices' else 12}: "
    beyond = f"{place}{what} are more than {key}={value} allows, "

    def told():
        status, output = broker.reload()
        assert status == 1
        return output.splitlines()[0]

    assert told() == f"{beyond}raise it in section [Broker] of sockbrokerd.conf and restart sockbrokerd"
    limits(broker, **{key: 3})
    assert told() == (f"{beyond}with which sockbrokerd was started; sockbrokerd.conf says 3 by now, so restart "
                      "sockbrokerd")
    assert broker.ctl("--config-dir", str(broker.config), "verify")[0] == 0, "with the limits of the file it is valid"
    broker.stop()
    broker.start()
    assert broker.status()[0]["state"] == "running"

    limits(broker, **{key: 2})
    status, output = broker.reload()
    assert (status, output) == (0, f"{place}warning: {what} are more than {key}=2 of sockbrokerd.conf allows by now: "
                                   "after a "
                                   "restart sockbrokerd will refuse this policy\n")
    assert broker.ctl("--config-dir", str(broker.config), "verify")[0] == 1


def test_mistakes_in_sockbrokerd_conf_are_told_by_a_reload_as_by_verify(broker):
    broker.policy(section("a", 61001, listen("tcp", "10.0.0.0/24"))).start()
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBinding=3\n")
    place = f"{broker.config}/sockbrokerd.conf:2: "
    status, output = broker.reload()
    assert status == 0 and output.startswith(f"{place}warning: unknown key MaxBinding=")
    status, output = broker.ctl("--config-dir", str(broker.config), "verify")
    assert status == 1 and output.startswith(f"{place}unknown key MaxBinding=")


def test_a_lowered_limit_of_sockets_holds_after_a_restart_for_those_that_come(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "Handover=share")).start()
    one = spawn("web")
    handed_over(one, "tcp", "ipv4")
    broker.stop()
    limits(broker, MaxSockets=2)
    broker.start()
    handed_over(one, "udp", "ipv6")
    open_socket(one, "udp", "ipv4")
    reply = one.register("udp-ipv4")
    assert reply.result == "quota"
    assert "all 2 slots for sockets are taken" in reply.message
    assert broker.status()[0]["capacity"]["sockets"] == 2, "which is full, though the maps have more room"
    assert 'sockbroker_capacity{resource="sockets"} 2\n' in broker.ctl("metrics")[1]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_limits_that_were_lowered_since_keep_no_policy_away_that_was_in_force(broker, spawn, end):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("old"), "tcp", "ipv4", service="web")
    getattr(broker, end)()
    limits(broker, MaxBindings=1)
    broker.start()
    handed_over(spawn("new"), "tcp", "ipv4", service="web")
    assert who("tcp", "ipv4") == "new"
    status = broker.status()[0]
    assert status["state"] == "degraded"
    assert "are more than MaxBindings=1 allows" in status["reason"]
    assert "the last-known-good policy is in force" in status["reason"]
    assert status["capacity"]["bindings"] == 1


def test_a_copy_that_does_not_fit_is_refused_with_its_line_and_what_to_do(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    assert broker.ctl("unload")[0] == 0
    broker.stop()
    limits(broker, MaxBindings=1)
    broker.start()
    reason = broker.status()[0]["reason"]
    assert "the last-known-good policy cannot be applied: it is refused (the first: " in reason
    assert reason.count("are more than MaxBindings=1 allows") == 2
