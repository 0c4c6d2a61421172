# SPDX-License-Identifier: LGPL-2.1-or-later
"""HoldSec= of services that policy admits by a name: who takes a message to notify is decided by what is known then,
and to be held a socket must be taken by the holder of its service."""

import pytest

from harness.until import until
from holding import HELD, end, states
from words import add_routes, everywhere, handed_over, listen, open_socket, section

UID, OTHER = 61001, 61002
BY_NAME = "[Service web]\nUser=web\n" + everywhere() + HELD


@pytest.fixture(name="broker")
def _broker(broker_with_sockets):
    add_routes()
    return broker_with_sockets


def late(broker):
    return [warning for warning in broker.status()[0]["warnings"] if "are served and not held" in warning]


def registered_late(broker, directory, spawn):
    """By an account that the host did not have when the broker asked for it."""
    broker.policy(BY_NAME).start()
    broker.wait_log("web does not exist on this host")
    directory.add("web", UID)
    web = spawn("web", UID)
    label = open_socket(web, "tcp", "ipv4")
    web.notify_and_wait("FDSTORE=1\nFDNAME=web", label)
    return web, label


def test_what_came_on_notify_while_the_broker_was_away_is_held(broker, directory, spawn):
    directory.add("web", UID)
    broker.policy(BY_NAME).start()
    web = spawn("web", UID)
    label = open_socket(web, "tcp", "ipv4")
    broker.kill()
    web.notify("FDSTORE=1\nFDNAME=web", label)
    broker.start()
    until("it to be registered", lambda: states(broker) == ["live"])
    assert late(broker) == []
    end(web, broker)
    assert states(broker) == ["held"]


def test_a_host_that_does_not_answer_keeps_notify_waiting_for_a_moment_only(broker, directory, spawn):
    directory.says("hang")
    broker.policy(BY_NAME + section("mail", OTHER, listen("tcp", "192.0.2.0/24", 25), HELD)).start()
    mail = spawn("mail", OTHER)
    mail.notify_and_wait("FDSTORE=1\nFDNAME=mail", open_socket(mail, "tcp", "ipv4"))
    until("it to be registered", lambda: states(broker, "mail") == ["live"])
    end(mail, broker)
    assert states(broker, "mail") == ["held"]
    directory.says("ok")


def test_of_an_account_that_came_into_being_since_status_says_that_it_is_not_held(broker, directory, spawn):
    """As of a DynamicUser= at the first start of its unit."""
    web, label = registered_late(broker, directory, spawn)
    until("it to be registered", lambda: states(broker) == ["live"])
    warning, = late(broker)
    assert warning.startswith("1 sockets of web are") and "register them again" in warning
    broker.wait_log("1 of the sockets that web has registered now are not held .*before this host had answered")
    web.notify_and_wait("FDSTORE=1\nFDNAME=web", label)
    until("it to be held", lambda: late(broker) == [])
    end(web, broker)
    assert states(broker) == ["held"]


@pytest.mark.parametrize("how", ["close", "policy"])
def test_the_warning_ends_with_what_it_is_about(broker, directory, spawn, how):
    web, label = registered_late(broker, directory, spawn)
    until("it to be warned of", lambda: late(broker))
    if how == "close":
        web.close(label)
    else:
        broker.policy(BY_NAME.replace(HELD, ""))
        assert broker.reload()[0] == 0
    until("nothing to be warned of", lambda: late(broker) == [])


def test_on_control_the_broker_waits_for_the_name(broker, directory, spawn):
    broker.policy(BY_NAME).start()
    broker.wait_log("web does not exist on this host")
    directory.add("web", UID)
    web = spawn("web", UID)
    handed_over(web, "tcp", "ipv4")
    assert late(broker) == []
    end(web, broker)
    assert states(broker) == ["held"]
