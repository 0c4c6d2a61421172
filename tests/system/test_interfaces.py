# SPDX-License-Identifier: LGPL-2.1-or-later
"""Interface= inside the unit's sandbox: the broker hears of interfaces that come and go."""
import json

POLICY = """\
[Service inner]
User=root
ListenStream=192.0.2.0/24:80
Interface=inner0
"""


def test_the_broker_follows_interfaces_inside_its_sandbox(broker):
    broker.write("/etc/sockbroker/conf.d/50-inner.conf", POLICY)
    cursor = broker.cursor()
    try:
        broker.run("systemctl reload sockbrokerd")

        def said(text):
            entries = broker.journal(cursor, "_SYSTEMD_UNIT=sockbrokerd.service")
            return any(text in entry["MESSAGE"] for entry in entries)

        broker.until("the warning", lambda: said("inner0 does not exist on this host (yet), so it matches nobody"))
        broker.run("ip link add inner0 type veth peer name inner1")
        broker.until("the rules to follow", lambda: said("rules follow a change of interfaces: inner0 has index"))
        broker.run("ip link del inner0")
        broker.until("the rules to follow", lambda: said("rules follow a change of interfaces: inner0 is gone"))
        assert not said("cannot watch the network interfaces")
    finally:
        broker.run("rm -f /etc/sockbroker/conf.d/50-inner.conf; ip link del inner0 2>/dev/null; "
                   "systemctl reload sockbrokerd")


def test_the_broker_is_in_an_empty_network_namespace_and_a_reload_warns_of_the_hosts_routes(broker):
    inode = {pid: broker.out(f"stat -Lc %i /proc/{pid}/ns/net") for pid in (1, broker.pid())}
    assert len(set(inode.values())) == 2
    assert [link["ifname"] for link in json.loads(broker.out(f"nsenter -t {broker.pid()} -n ip -j link"))] == ["lo"]
    broker.policy("10-routes.conf",
                  "[Service one]\nUser=0\nListenStream=192.0.2.0/24:80\nListenStream=198.18.7.0/24:80\n")
    cursor = broker.cursor()
    broker.run("systemctl reload sockbrokerd")
    told = "\n".join(entry["MESSAGE"] for entry in broker.entries(cursor, "SYSLOG_IDENTIFIER=sockbrokerctl"))
    assert "198.18.7.0/24" in told and "192.0.2.0/24" not in told
