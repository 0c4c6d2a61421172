# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S11: one broker for a network namespace, as sockbrokerd@NETNS.service starts it, and nothing leaks."""

import os
import pathlib
import subprocess
import sys

import pytest

from harness import broker as broker_module
from harness import client, kernel, namespace, sandbox, service, worker
from words import ADDRESS, PORT, PREFIXES, everywhere, section

SIDES = ("left", "right")
# Passes a listener to a program as systemd would: sys.argv[1] is the directory that has it.
PASS = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
if listener.fileno() != 3:
    os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
folder, name, *words = sys.argv[1:]
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="shared")
os.setgroups([])
os.setgid(61001)
os.setuid(61001)
os.execv(f"{folder}/{name}", [name, *words])
"""


def enter(netns):
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    kernel.setns(fd, kernel.CLONE_NEWNET)
    os.close(fd)


class _Service(service.Service):
    def __init__(self, netns, name, uid):
        enter(netns)
        super().__init__(name, uid, {}, uid)
        self.runtime = f"/run/sockbroker/netns/{netns}"

    def offer_to(self, netns, label, name=None):
        """The socket of one namespace to the broker of another."""
        own, self.runtime = self.runtime, f"/run/sockbroker/netns/{netns}"
        reply = self.register(label, service=name)
        self.runtime = own
        return reply


class _Client(client.Client):
    def __init__(self, netns):
        enter(netns)
        super().__init__()

    def configure(self):
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.add_local_routes(*PREFIXES.values())

    def refused(self, family):
        try:
            return client.ask("tcp", ADDRESS[family], PORT).name
        except ConnectionRefusedError:
            return None


class Side:
    """A namespace with its broker, its service and a client."""

    def __init__(self, netns):
        namespace.run("ip", "netns", "add", netns)
        self.name = f"web-{netns}"
        self.client = worker.Worker(_Client, netns)
        self.client.configure()
        self.broker = broker_module.Broker(netns=netns)
        # Whoever runs under that uid may register with either.
        self.broker.policy(section(self.name, 61001, everywhere()) + section("shared", 61001, "ListenStream=9000"))
        self.broker.start()
        self.service = worker.Worker(_Service, netns, self.name, 61001)
        for family, address in (("ipv4", "127.0.0.1"), ("ipv6", "::1")):
            self.service.open(f"tcp-{family}", "tcp", address)
            self.service.open(f"udp-{family}", "udp", address, PORT)
        reply = self.service.register("tcp-ipv4", "tcp-ipv6", "udp-ipv4", "udp-ipv6")
        assert reply.result == "ok", reply

    def answers(self):
        return {self.client.ask(protocol, ADDRESS[family], PORT).name
                for protocol in ("tcp", "udp") for family in PREFIXES}

    def end(self):
        self.service.kill()
        self.client.kill()
        self.broker.discard()


@pytest.fixture
def sides(netns):  # pylint: disable=unused-argument
    # The one bpffs of the machine, as its mount unit makes it.
    pathlib.Path("/run/sockbroker/bpf").mkdir(parents=True)
    namespace.run("mount", "-t", "bpf", "-o", "mode=0755", "bpf", "/run/sockbroker/bpf")
    made = {}
    try:
        for netns_name in SIDES:
            made[netns_name] = Side(netns_name)
        yield made
    finally:
        for side in made.values():
            side.end()
            print(side.broker.log())


def test_s11_two_brokers_in_two_namespaces_with_the_same_prefixes_see_nothing_of_each_other(sides):
    for netns, side in sides.items():
        assert side.answers() == {f"web-{netns}"}
        assert {line["service"] for line in side.broker.list()} == {f"web-{netns}"}
        assert {line["service"] for line in side.broker.ask("VERB=bindings").lines} == {f"web-{netns}", "shared"}
    pins = pathlib.Path("/run/sockbroker/bpf")
    assert not (pins / "dispatch").exists()
    assert sorted(path.name for path in (pins / "netns").iterdir()) == list(SIDES)

    # A socket keeps the namespace that it was made in, whoever is asked and wherever.
    reply = sides["left"].service.offer_to("right", "tcp-ipv4")
    assert reply.result == "unknown-service", reply
    reply = sides["left"].service.offer_to("right", "tcp-ipv4", "shared")
    assert reply.result == "foreign-netns", reply
    assert {line["service"] for line in sides["right"].broker.list()} == {"web-right"}
    assert {line["service"] for line in sides["left"].broker.list()} == {"web-left"}


def test_s11_remedies_are_those_of_the_namespace(sides):
    left = sides["left"]
    reply = left.service.offer_to("right", "tcp-ipv4", "shared")
    assert reply.message.startswith("this is the broker of network namespace right: the socket belongs to another")
    assert "sockbrokerd@NETNS.service" in reply.message and "--runtime-dir=/run/sockbroker/netns/NETNS" in reply.message
    assert reply.message.endswith("if right was removed and made anew since it was started, restart it")
    left.broker.policy(section("far", 61001, "ListenStream=203.0.113.0/24:80", "ListenStream=[2001:db8:7::]/48:80"),
                       "60-far.conf")
    status, text = left.broker.ctl("reload")
    command = "ip -n left route add local {} dev lo"
    assert status == 0 and command.format("203.0.113.0/24") in text, text
    text = left.broker.ctl("explain", "tcp", "203.0.113.7", "80", "--bpffs", str(left.broker.bpffs))[1]
    assert f"({command.format('203.0.113.0/24')})" in text and "/32" not in text, text
    text = left.broker.ctl("explain", "tcp", "2001:db8:7::7", "80", "--bpffs", str(left.broker.bpffs))[1]
    assert f"({command.format('2001:db8:7::/48')})" in text and "/128" not in text, text


def test_s11_whoever_registers_from_a_namespace_is_told_which_it_is(sides):
    """In the namespace right, with the broker of left asked: by the tool and by sockbroker-run."""
    sandbox.install(broker_module.BUILD / "sockbrokerctl")
    for words in (["sockbrokerctl", "--netns=left", "register", "shared"],
                  ["sockbroker-run", "--runtime-dir=/run/sockbroker/netns/left", "--service=shared", "/bin/true"]):
        done = subprocess.run(
            ["nsenter", "--net=/run/netns/right", sys.executable, "-c", PASS, str(sandbox.BIN), *words],
            capture_output=True, text=True, check=False)
        assert "foreign-netns" in done.stderr and "runs in network namespace right" in done.stderr, done
        assert "sockbrokerd@right.service: sockbrokerctl --netns=right" in done.stderr
    assert sides["left"].answers() == {"web-left"}


def test_s11_what_ends_one_broker_or_its_dispatch_leaves_the_other(sides):
    left, right = sides.values()
    left.broker.kill()
    assert (left.answers(), right.answers()) == ({"web-left"}, {"web-right"})
    assert right.broker.ctl("unload")[0] == 0
    right.broker.process.wait(25)
    assert {right.client.refused(family) for family in PREFIXES} == {None}
    assert left.answers() == {"web-left"}
    assert not list((right.broker.bpffs / "dispatch").iterdir())
    left.broker.start()  # takes up what is its own
    assert {line["service"] for line in left.broker.list()} == {"web-left"}
    assert left.broker.ctl("unload")[0] == 0
    assert {left.client.refused(family) for family in PREFIXES} == {None}


def test_s11_a_broker_started_in_another_namespace_than_it_is_told_says_so(netns):  # pylint: disable=unused-argument
    namespace.run("ip", "netns", "add", "left")
    broker = broker_module.Broker(netns="left")
    broker.before = ["unshare", "--net"]
    with pytest.raises(RuntimeError, match="--netns left names another network namespace"):
        broker.start()
    broker.discard()
