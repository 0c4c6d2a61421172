# SPDX-License-Identifier: LGPL-2.1-or-later
"""As test_supervise_load.py, stock name servers: a reload under load by UDP and TCP, beside the same server with a
plain privileged bind, and kill -9. With SOCKBROKER_LONG each of them, unpacked from Debian's packages, and many
questions."""

import contextlib
import os
import re
import signal
import subprocess
import time

import pytest

import under_load
from harness import namespace, sandbox, servers, supervised, units
from harness.hammer import Hammer, has_ended, only_accepted_ones_failed
from test_supervise_haproxy import tree
from test_udp_replies import section
from test_unmodified import ADDRESSES, binding
from under_load import LONG, UID
from words import add_routes, section as of_user

HIGH = 5353  # a port that needs no privilege anywhere
UNIT = "dns.service"
# For each of the four clients, between two reloads.
ROUNDS, QUESTIONS = (10, 500) if LONG else (3, 150)

CONTROL = """\
  port: 53
remote-control:
  control-enable: yes
  control-interface: /run/server/control
  control-use-cert: no
"""
UNBOUND = servers.UNBOUND.format(automatic="yes").replace(
    "remote-control:\n  control-enable: no\n", CONTROL)


def by_control(server):
    done = subprocess.run([server.program.with_name("unbound-control"), "-c", "/run/server/conf", "reload"],
                          env=server.environment, capture_output=True, text=True, timeout=sandbox.TIMEOUT, check=False)
    assert done.stdout == "ok\n", done.stderr


def by_signal(server):
    server.process.send_signal(signal.SIGHUP)


# What the server logs when it is started, and when it has reloaded.
RELOADS = {"unbound": (by_control, "start of service", "start of service"),
           "unbound, SIGHUP": (by_signal, "start of service", "start of service"),
           "knot": (by_signal, "server started", "configuration reloaded"),
           "nsd": (by_signal, "nsd started", "SIGHUP received, reloading"),
           "bind9": (by_signal, "running$", "reloading configuration succeeded")}
CHANGES = {"unbound": lambda text: UNBOUND, "knot": lambda text: text.replace("any: warning", "any: info"),
           "nsd": lambda text: text.replace('username: ""', 'username: ""\n  verbosity: 1\n  rrl-ratelimit: 0'),
           "bind9": lambda text: text}


class NameServer:
    def __init__(self, name, port, before):
        [self.server] = [one for one in servers.SERVERS
                         if one.name == (name if name != "unbound" else "unbound, interface-automatic")]
        root = servers.root_of(self.server)
        self.program = servers.program(self.server, self.server.program, root)
        if self.program is None:
            pytest.skip(f"{self.server.program} is not installed, and only SOCKBROKER_LONG unpacks it")
        self.environment = servers.environment(self.server, root)
        servers.FOLDER.mkdir(mode=0o755, exist_ok=True)
        os.chown(servers.FOLDER, UID, UID)
        files = dict(self.server.files, conf=CHANGES[name](self.server.files["conf"]))
        for file, text in files.items():
            (servers.FOLDER / file).write_text(re.sub(r"(@|port: )53\b", rf"\g<1>{port}", text))
        (servers.FOLDER / "log").touch()
        self.before = before  # words before the program's
        self.process = None

    def start(self, started):
        before = self.said(started)
        with open(servers.FOLDER / "log", "ab") as log:
            self.process = subprocess.Popen([*self.before, str(self.program), *self.server.arguments],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                                            cwd="/run/server")
        supervised.until(lambda: self.said(started) > before)
        return self

    def said(self, what):
        """How often."""
        return len(re.findall(what, (servers.FOLDER / "log").read_text(errors="replace"), re.MULTILINE))

    def reload(self, act, done):
        before = self.said(done)
        act(self)
        supervised.until(lambda: self.said(done) > before)

    def kill_9(self):
        """All of it at once. The times before and after."""
        before = time.monotonic()
        pids = tree(self.process.pid) if self.process else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
        supervised.until(lambda: all(map(has_ended, pids)))
        return before, time.monotonic()


def ask(port=53):
    return [Hammer(addresses[0], port, protocol) for protocol in ("dns-udp", "dns-tcp")
            for addresses in ADDRESSES.values()]


@pytest.fixture(autouse=True)
def _addresses(netns):  # pylint: disable=unused-argument
    """On an interface, since a plain server cannot answer over IPv6 from others. And clients that are not to run out of
    ports: they are the first to close."""
    add_routes()
    namespace.sysctl("net/ipv4/tcp_tw_reuse", 1)
    namespace.sysctl("net/ipv4/ip_local_port_range", "10000 65535")
    for address in (address for family in ADDRESSES.values() for address in family):
        namespace.run("ip", "addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))


@pytest.fixture(name="serve")
def _serve(broker, slice_):
    """serve(name, supervised): a server of port 53, UDP and TCP, both families; of a unit, or privileged by itself."""
    started = []

    def begin(name, under_supervision):
        if under_supervision:
            broker.policy(section("it", UNIT, binding("tcp", 53), binding("udp", 53), "UdpReply=original",
                                  "Handover=share")).start()
            sandbox.install()
            before = units.command_in(slice_.unit(UNIT), *sandbox.command(
                "--supervise", *of(name).options, uid=of(name).uid, ambient=""))
        else:
            given = "+net_bind_service"
            before = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--ambient-caps", given,
                      "--inh-caps", given]
        server = NameServer(name, 53, before)
        started.append(server)
        return server

    yield begin
    for one in started:
        one.kill_9()
    if started:
        print((servers.FOLDER / "log").read_text(errors="replace")[-3000:])


def of(name):
    [server] = [one for one in servers.SERVERS if one.name == name]
    return server


def reload_under_load(serve, name, under_supervision):
    """{protocol: [questions that were answered, that were not]}"""
    act, started, done = RELOADS[name]
    server = serve(name.partition(",")[0], under_supervision).start(started)
    asked = ask()
    for _ in range(ROUNDS):
        server.reload(act, done)
        for one in asked:
            one.more(QUESTIONS)  # so it is back, by each way
    counted = [(one, one.end()) for one in asked]
    server.kill_9()
    sums = {"dns-udp": [0, 0], "dns-tcp": [0, 0]}
    for one, counts in counted:
        sums[one.protocol][0] += counts["good"]
        sums[one.protocol][1] += counts["failed"]
    told = "; ".join(f"{one.protocol} {one.address}: {counts['good']} answered, {counts['failed']} not"
                     for one, counts in counted)
    print(f"{name}, {'--supervise' if under_supervision else 'plain'}, {ROUNDS} reloads: {told}")
    for one, counts in counted:
        # A name server that reloads closes connections that it has accepted: of four clients no more than four.
        assert counts["refused"] == 0 and counts["failed"] <= 4 * ROUNDS, (one.protocol, one.address, counts["errors"])
        assert one.protocol == "dns-udp" or all("reset" in error or "closed" in error
                                                for error in counts["errors"]), counts
    return sums


@pytest.mark.parametrize("name", RELOADS)
def test_a_reload_loses_no_more_than_a_plain_privileged_one(serve, name):
    plain, under_supervision = (reload_under_load(serve, name, supervised_) for supervised_ in (False, True))
    # Where the server sets no source, UdpReply=original does: docs/udp.md has when a client is forgotten.
    answered, lost = under_supervision["dns-udp"]
    assert plain["dns-udp"][1] == 0 and lost <= (answered / 50_000 + 1 if name in ("nsd", "bind9") else 0)
    # How many connections are open when it reloads is chance.
    assert under_supervision["dns-tcp"][1] <= 2 * plain["dns-tcp"][1] + 8


def test_kill_9_with_hold_sec_under_load_loses_only_what_was_accepted(broker):
    """TCP and UDP, a port that needs no privilege: PID 1 has no part in it. A question that the server has read dies
    with it; whoever asks while nobody is there is answered by the next instance."""
    broker.policy(of_user("it", UID, binding("tcp", HIGH), binding("udp", HIGH), "HoldSec=30",
                          "Handover=share")).start()
    sandbox.install()
    server = NameServer("unbound", HIGH, sandbox.command("--supervise", "--profile=interfaces", f"--bind=tcp:{HIGH}",
                                                         f"--bind=udp:{HIGH}", uid=UID, ambient=""))
    started = RELOADS["unbound"][1]
    try:
        server.start(started)
        before = {one["cookie"] for one in broker.list()}
        asked, deaths = ask(HIGH), []
        for _ in range(ROUNDS):
            deaths.append(server.kill_9())
            under_load.wait_until_held(broker)
            server.start(started)
            under_load.wait_for_sockets(broker, len(before))
            for one in asked:
                one.more(QUESTIONS)
        only_accepted_ones_failed(asked, deaths, "kill -9 of unbound")
        assert {one["cookie"] for one in broker.list()} == before
    finally:
        server.kill_9()
        print((servers.FOLDER / "log").read_text(errors="replace")[-3000:])
