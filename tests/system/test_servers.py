# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples that run servers as Debian packages them, and the policies that are installed for reading."""
import os
import re

import pytest

from conftest import EXAMPLES, SOURCE

ROUNDS, CONNECTIONS = (20, 1000) if "SOCKBROKER_LONG" in os.environ else (3, 200)
ADDRESSES = "198.51.100.7", "2001:db8:2::7"


@pytest.fixture
def web(broker):
    broker.run(f"install -D -m 644 {EXAMPLES}/web/nginx.conf /etc/nginx/web.conf")
    broker.example("web", "web.socket", "web.service")
    broker.run("systemctl start web.service")
    return broker


@pytest.mark.parametrize("what", ["reload", "restart", "stop"])
def test_nginx_is_reloaded_restarted_and_stopped_under_load_with_no_connection_reset(web, what):
    """Stopped: web.socket stays, so that the next client starts it again."""
    hammers = [web.hammer(address, 80, "http") for address in ADDRESSES]
    for _ in range(ROUNDS):
        web.run(f"systemctl reset-failed; systemctl {what} web.service")  # the first: more often than a unit may start
        for hammer in hammers:
            hammer.wait_for_more(web.machine, CONNECTIONS)
    for hammer in hammers:
        counts = hammer.end()
        assert counts["failed"] == 0 and counts["good"] >= ROUNDS * CONNECTIONS, counts


def flags_of_listeners(machine, unit: str) -> list[int]:
    """Status flags of the listeners and unconnected sockets that the processes of a unit have open."""
    said = machine.out(f"""for pid in $(cat /sys/fs/cgroup/system.slice/{unit}/cgroup.procs); do
        for fd in $(ss -Hlntuxpe | grep -o "pid=$pid,fd=[0-9]*" | cut -d= -f3); do
            sed -n 's/^flags:[[:space:]]*//p' /proc/$pid/fdinfo/$fd
        done
    done""")
    return [int(flags, 8) for flags in said.split()]


def test_no_process_of_a_server_with_several_waits_in_accept_for_a_client_of_another(web):
    """nginx and unbound take a listener that is passed to them as it is, though it blocks."""
    web.run(f"install -D -m 644 {EXAMPLES}/cache/unbound.conf /etc/unbound/cache.conf")
    web.example("cache", "cache.socket", "cache.service", "cache-register.service")
    web.run("systemctl start cache.socket && systemctl start cache.service")
    for unit in "web.service", "cache.service":
        flags = flags_of_listeners(web, unit)
        assert flags and all(each & os.O_NONBLOCK for each in flags), (unit, flags)


def test_nginx_is_taken_off_under_load_with_clients_refused_and_none_reset(web):
    """As sandbox.md says."""
    text = (SOURCE / "docs/sandbox.md").read_text()
    take_off = re.search(r"```sh\n(sockbrokerctl unregister web.*?)```", text, re.S)[1]
    hammers = [web.hammer(address, 80, "http") for address in ADDRESSES]
    for hammer in hammers:
        hammer.wait_for_more(web.machine, CONNECTIONS)
    web.run(take_off)
    for hammer in hammers:
        counts = hammer.end()
        assert counts["failed"] == counts["refused"] > 0, counts
    assert web.registered("web") == []


def test_nginx_runs_beside_the_other_web_server_of_the_examples(web):
    """Each has an address and a port of its own."""
    web.example("hello", "hello.service")
    web.run("systemctl start hello.service && sockbrokerctl wait hello --for=live --timeout=30s")
    assert web.out("curl -s http://198.51.100.7/") == "nginx, you asked for 198.51.100.7"
    assert web.out("curl -s http://192.0.2.7/") == "hello, you asked for 192.0.2.7 port 80"


def test_the_installed_policy_for_a_web_server_is_for_nginx_with_two_listeners(web):
    """20-web.conf, and in the units what it says."""
    web.run("systemctl stop web.socket web.service && rm /etc/sockbroker/conf.d/web.conf && "
            "cp /usr/share/doc/sockbroker/conf.d/20-web.conf /etc/sockbroker/conf.d/")
    socket = web.out("cat /etc/systemd/system/web.socket")
    web.unit("web-tls.socket",
             socket.replace(":8008", ":8443").replace("FileDescriptorName=web", "FileDescriptorName=https\n"
                                                                        "Service=web.service"))
    web.unit("web.socket", socket.replace("FileDescriptorName=web", "FileDescriptorName=http"))
    web.write("/etc/systemd/system/web.service.d/tls.conf", "[Service]\nSockets=web.socket web-tls.socket\n"
              "Environment=NGINX=3;4;\nExecStartPost=/usr/bin/sockbrokerctl wait https --for=live --timeout=30s\n")
    plain = web.out("cat /etc/nginx/web.conf")
    web.write("/etc/nginx/web.conf", plain.removesuffix("}") + """
        server { listen [::ffff:127.0.0.8]:8443 ipv6only=off; location / { return 200 "port 443\\n"; } } }""")
    web.run("systemctl daemon-reload && systemctl reload sockbrokerd && systemctl start web.service")
    for address in "198.51.100.7", "[2001:db8:2::7]":
        for _ in range(8):
            assert web.out(f"curl -s http://{address}/") == f"nginx, you asked for {address}"
            assert web.out(f"curl -s http://{address}:443/") == "port 443"


def test_nginx_may_write_where_its_settings_say(web):
    """A body larger than its buffer goes into a temporary file."""
    web.run("head -c 3000000 /dev/zero >/run/body")
    said = web.out("curl -s -o /dev/null -w '%{http_code}' -H Expect: --data-binary @/run/body http://198.51.100.7/")
    assert said in ("200", "413")
    assert web.run("test -s /run/web/nginx.pid && ls -d /var/lib/web/body").returncode == 0


def test_unbound_and_another_name_server_answer_on_port_53_each_for_its_prefixes(broker):
    broker.run(f"install -D -m 644 {EXAMPLES}/cache/unbound.conf /etc/unbound/cache.conf")
    broker.example("cache", "cache.socket", "cache.service", "cache-register.service")
    broker.example("resolver", "resolver.socket", "resolver.service", "resolver-register.service")
    broker.run("systemctl start cache.socket resolver.socket")
    for service in "cache", "resolver":
        broker.until_registered(service, 4)
    for tcp in "+notcp", "+tcp":
        for address, kind, answer in (("198.51.100.7", "A", "192.0.2.53"), ("2001:db8:2::7", "AAAA", "2001:db8::53"),
                                      ("203.0.113.7", "A", "203.0.113.7"), ("2001:db8:3::7", "AAAA", "2001:db8:3::7")):
            assert broker.out(f"dig +short {tcp} @{address} example.org {kind}") == answer


def test_the_policies_for_reading_are_good_together_and_with_those_of_the_examples(broker):
    for folder in "/usr/share/doc/sockbroker/conf.d", f"{EXAMPLES}/conf.d":
        broker.run(f"mkdir -p /run/together/conf.d && cp {folder}/*.conf /run/together/conf.d/")
        valid = broker.out("sockbrokerctl verify --offline --config-dir=/run/together").splitlines()
        assert len(valid) == 1, valid
        broker.run("rm -r /run/together")


def test_no_example_is_bound_to_the_one_loopback_address_of_ipv6(stage):
    """Two services on one port of [::1] with ReusePort=yes would be one SO_REUSEPORT group."""
    for file in [*(stage / "usr/share/doc/sockbroker/examples").rglob("*"),
                 *(stage / "usr/lib/sockbroker/examples").iterdir()]:
        if file.is_file() and file.suffix in (".socket", ".service", ".py", ".conf"):
            text = "".join(line for line in file.read_text().splitlines(True) if not line.startswith("#"))
            assert "::1]" not in text and '"::1"' not in text, file
