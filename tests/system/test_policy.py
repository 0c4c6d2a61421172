# SPDX-License-Identifier: LGPL-2.1-or-later
"""verify, `systemctl reload` and `systemctl status` say the same of a policy, where the broker has a user and a
sandbox."""
import json

import pytest

from harness import long

GOOD = "[Service web]\nUnit=web.service\nListenStream=192.0.2.0/24:80\n"
FILE = "/etc/sockbroker/conf.d/a.conf"

# What the broker's user cannot read, or its sandbox does not let it.
OUT_OF_REACH = {
    "a file of root alone": (f"chmod 600 {FILE}", FILE),
    "a folder of root alone": ("chmod 700 /etc/sockbroker/conf.d", "/etc/sockbroker/conf.d"),
    "a folder above of root alone": ("chmod 700 /etc/sockbroker", "/etc/sockbroker/conf.d"),
    "a link to a file elsewhere": (f"mkdir -p /srv/p && mv {FILE} /srv/p && ln -s /srv/p/a.conf {FILE}", FILE),
    "a link to a folder elsewhere": ("mv /etc/sockbroker/conf.d /srv/conf.d && ln -s /srv/conf.d "
                                     "/etc/sockbroker/conf.d",
                                     "/etc/sockbroker/conf.d"),
    "a link into a home": (f"mkdir -m 755 -p /home/p && mv {FILE} /home/p && ln -s /home/p/a.conf {FILE}", FILE),
    "a link into /tmp": (f"mv {FILE} /tmp/a.conf && ln -s /tmp/a.conf {FILE}", FILE),
}


# The same for somebody who can read them himself, as a member of their group, and cannot become the broker's user.
FOR_A_MEMBER = {
    "a file of a group": (f"chgrp adm {FILE} && chmod 640 {FILE}", FILE),
    "a folder of a group": ("chgrp adm /etc/sockbroker/conf.d && chmod 750 /etc/sockbroker/conf.d",
                            "/etc/sockbroker/conf.d"),
    "a folder above of a group": ("chgrp adm /etc/sockbroker && chmod 750 /etc/sockbroker", "/etc/sockbroker/conf.d"),
    "a link through a folder of a group": (
        f"mkdir -p /etc/p && mv {FILE} /etc/p && ln -s /etc/p/a.conf {FILE} && chgrp adm /etc/p && chmod 750 /etc/p",
        FILE),
}
AS_MEMBER = "setpriv --reuid=61001 --regid=61001 --groups=$(getent group adm | cut -d: -f3) "


def mended(broker):
    broker.run("chmod 755 /etc/sockbroker; test -L /etc/sockbroker/conf.d && rm /etc/sockbroker/conf.d; "
               "mkdir -p /etc/sockbroker/conf.d; chmod 755 /etc/sockbroker/conf.d; rm -rf "
               f"{FILE} /etc/p /srv/p /srv/conf.d /home/p /tmp/a.conf; systemctl reload sockbrokerd")


@pytest.fixture(name="policy")
def _policy(broker):
    broker.policy("a.conf", GOOD)
    broker.run("systemctl reload sockbrokerd")
    yield broker
    mended(broker)


@pytest.mark.parametrize("change, place", long.some(
    OUT_OF_REACH.values(), OUT_OF_REACH["a file of root alone"], OUT_OF_REACH["a folder above of root alone"],
    OUT_OF_REACH["a link to a folder elsewhere"], OUT_OF_REACH["a link into a home"]), ids=OUT_OF_REACH)
def test_root_is_told_by_verify_what_the_broker_cannot_read(policy, change, place):
    assert policy.run("sockbrokerctl verify --offline").stdout == "The policy is valid: 1 file, 1 service, 1 binding.\n"
    policy.run(change)
    assert policy.run("systemctl reload sockbrokerd", check=False).returncode != 0
    done = policy.run("sockbrokerctl --json=short verify", check=False)
    assert done.returncode == 1
    assert place in [row["file"] for row in json.loads(done.stdout) if row["severity"] == "error"]
    assert policy.status()["policy"]["services"] == 1, "the policy in force stays"


def errors(done):
    return {(row["file"], row["message"]) for row in json.loads(done.stdout) if row["severity"] == "error"}


@pytest.mark.parametrize("change, place", long.some(
    FOR_A_MEMBER.values(), FOR_A_MEMBER["a file of a group"], FOR_A_MEMBER["a link through a folder of a group"]),
    ids=FOR_A_MEMBER)
def test_who_is_not_root_is_told_the_same(policy, change, place):
    ordinary = AS_MEMBER + "sockbrokerctl --json=short verify"
    assert not errors(policy.run(ordinary))
    policy.run(change)
    assert policy.run("systemctl reload sockbrokerd", check=False).returncode != 0
    done = policy.run(ordinary, check=False)
    assert done.returncode == 1 and place in [file for file, _ in errors(done)]
    assert errors(done) == errors(policy.run("sockbrokerctl --json=short verify", check=False))


def test_a_refused_reload_is_in_systemctl_status_at_once_with_its_errors(policy):
    policy.policy("a.conf", GOOD + "".join(f"Frob{i}=1\n" for i in range(30)))
    cursor = policy.cursor()
    assert policy.run("systemctl reload sockbrokerd", check=False).returncode != 0
    refused = "policy refused, 30 errors, the running policy stays"
    assert policy.show("sockbrokerd", "StatusText").startswith(
        f"1 services, 1 bindings, degraded: {refused} (the first: {FILE}:4: unknown key Frob0=")
    assert policy.show("sockbrokerd", "ActiveState") == "active"
    lines = [entry["MESSAGE"] for entry in policy.entries(cursor, "SYSLOG_IDENTIFIER=sockbrokerctl",
                                                          "_SYSTEMD_UNIT=sockbrokerd.service")]
    assert [line.partition(", this")[0] for line in lines[:10]] == [f"{FILE}:{4 + i}: unknown key Frob{i}="
                                                                    for i in range(10)]
    assert lines[10:] == ["sockbrokerctl: 20 more, all of them by: sockbrokerctl verify", f"sockbrokerctl: {refused}"]

    policy.policy("a.conf", GOOD)
    policy.run("systemctl reload sockbrokerd")
    assert policy.show("sockbrokerd", "StatusText") == "1 services, 1 bindings"
