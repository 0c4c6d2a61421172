# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of docs/unmodified.md: stock servers under sockbroker-run --supervise, asked from outside their namespace
at several addresses. In ./check those that are installed, with SOCKBROKER_LONG all, unpacked from Debian's packages."""

import os
import pathlib
import re
import subprocess
import time

import pytest

from harness import namespace, sandbox, servers, units
from harness.until import until
from test_supervise_spares import passed, socket_unit
from words import PREFIXES, add_routes, listen, section

OTHER_PORT = 8765  # the service's in policy, and unknown to the server
ADDRESSES = {"ipv4": ("192.0.2.7", "192.0.2.200"), "ipv6": ("2001:db8::7", "2001:db8::99")}
DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs/unmodified.md"


def table():
    """server -> column -> what the document says."""
    rows = {}
    lines = iter(DOCUMENT.read_text().splitlines())
    for line in lines:
        if line.startswith("| server |"):
            names = [cell.strip() for cell in line.strip("|").split("|")][1:5]
            next(lines)
            for row in lines:
                if not row.startswith("|"):
                    return rows
                cells = [cell.strip() for cell in row.strip("|").split("|")]
                rows[cells[0]] = dict(zip(names, cells[1:]))
    return rows


def binding(protocol, port):
    return "".join(listen(protocol, prefix, port) for prefix in PREFIXES.values())


class Running:
    """cgroup: of a unit, in which it is started."""

    def __init__(self, server, sockets, cgroup=None):
        root = servers.root_of(server)
        first = server.prepare[0] if server.prepare else server.program
        if servers.program(server, first, root) is None:
            pytest.skip(f"{first} is not installed, and only SOCKBROKER_LONG unpacks it")
        servers.FOLDER.mkdir(mode=0o755)
        os.chown(servers.FOLDER, server.uid, server.uid)
        for name, text in server.files.items():
            (servers.FOLDER / name).write_text(servers.placed(text, root))
        env = servers.environment(server, root)
        if server.prepare:
            first, *rest = server.prepare
            subprocess.run(["setpriv", f"--reuid={server.uid}", f"--regid={server.uid}", "--clear-groups",
                            str(servers.program(server, first, root)), *rest], check=True, capture_output=True, env=env)
        self.program = servers.program(server, server.program, root)
        words, fds = passed(*sockets) if sockets else ([], [])
        command = [*words, *sandbox.command("--supervise", *server.options, str(self.program),
                                            *(servers.placed(word, root) for word in server.arguments), ambient="",
                                            uid=server.uid)]
        self.log = open(servers.FOLDER / "log", "w+b")  # pylint: disable=consider-using-with
        if cgroup is not None:
            command = units.command_in(cgroup, *command)
        self.process = subprocess.Popen(command, env=env, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT, cwd="/run/server")
        for fd in fds:
            os.close(fd)

    def said(self):
        return (servers.FOLDER / "log").read_text(errors="replace")[-3000:]

    def end(self):
        servers.end(self.process)
        self.log.close()


def add_addresses(server):
    add_routes()
    if server.local:
        for address in ("192.0.2.7/32", "192.0.2.200/32", "2001:db8::7/128", "2001:db8::99/128"):
            namespace.run("ip", "addr", "add", address, "dev", "lo")


def ask(host, protocol, address, server, port=None, seconds=15):
    sent, wanted = servers.SPOKEN[server.protocol]
    if server.protocol == "dns" and protocol == "tcp":
        sent = len(sent).to_bytes(2, "big") + sent
    done = subprocess.run(["nsenter", "--net", f"--target={host.pid}", "/usr/bin/python3", "-c", servers.CLIENT,
                           protocol,
                           address, str(port or server.port), sent.hex(), wanted.hex(), str(seconds)],
                          capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or "no: " + (done.stderr.strip().splitlines() or ["?"])[-1]


def capabilities(pid):
    """Of a process and its children."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(re.search(r"CapEff:\s+(\w+)", text)[1], 16)}.union(*map(capabilities, children))


@pytest.mark.parametrize("server", servers.SERVERS, ids=lambda server: server.name)
def test_a_stock_server_is_reached_as_the_table_says(broker, remote, server):
    add_addresses(server)
    dns = server.protocol == "dns"
    broker.policy(section("it", server.uid, binding("tcp", server.port), binding("tcp", OTHER_PORT),
                          binding("udp", server.port) if dns else "",
                          *(("Handover=share",) if server.share else ()))).start()
    sandbox.install()
    sockets = []
    if dns:  # an ordinary user may not bind UDP 53, PID 1 may
        sockets = [("it", socket_unit("udp", "127.0.0.2", 53)), ("it", socket_unit("udp", "::1", 53))]
    running = Running(server, sockets)
    try:
        wanted = len(server.offers())
        deadline = time.monotonic() + sandbox.TIMEOUT
        while len(serving(broker)) < wanted and time.monotonic() < deadline and running.process.poll() is None:
            time.sleep(0.05)
        assert running.process.poll() is None, running.said()
        found = {}
        row = table().get(server.name, {})
        for protocol, family in server.offers():
            answered = row.get(protocol + family[-1]) == "yes"
            if answered:  # a server listens before it knows all that it has to say
                until("the first answer", lambda p=protocol, f=family: ask(
                    remote, p, ADDRESSES[f][0], server) == "yes" or running.process.poll() is not None)
            # An answer over UDP has the port of the socket.
            ports = (server.port, OTHER_PORT) if protocol == "tcp" and not server.own_port else (server.port,)
            answers = {ask(remote, protocol, address, server, port, 15 if answered else 1)
                       for address in ADDRESSES[family] for port in ports}
            found[protocol + family[-1]] = "yes" if answers == {"yes"} else "; ".join(sorted(answers))
        assert capabilities(running.process.pid) == {0}
        said = {column: text for column, text in row.items() if text != "-"}
        # An answer with a loopback address as its source never leaves the machine.
        shown = {column: "no source" if column[:3] == "udp" and "timed out" in text else text
                 for column, text in found.items()}
        print(row_of(server, shown))
        assert shown == said, (row_of(server, shown), running.said(), broker.list())
    finally:
        running.end()


@pytest.mark.parametrize("server", servers.SERVERS, ids=lambda server: server.name)
def test_a_stock_server_whose_port_is_not_granted_does_not_get_it(broker, server):
    """Its bind(2) fails with EACCES, and the journal has who asked for what."""
    add_addresses(server)
    broker.policy(section("it", server.uid, binding("tcp", OTHER_PORT), binding("udp", OTHER_PORT))).start()
    sandbox.install()
    running = Running(server, [])
    try:
        broker.wait_log(rf"refuse: .*takes a socket bound to (tcp|udp) \S+:{server.port}\b.*uid={server.uid}")
        assert broker.list() == []
        assert capabilities(running.process.pid) <= {0}
        until("the supervisor says so", lambda: "grant it in conf.d" in running.said())  # after the broker has
    finally:
        running.end()
    assert broker.list() == []


def serving(broker):
    """(protocol, family) that a live socket serves."""
    pairs = set()
    for entry in broker.list():
        if entry["state"] == "live":
            for family in ("ipv4", "ipv6") if entry["family"] == "dual" else (entry["family"],):
                pairs.add((entry["protocol"], family))
    return pairs


def row_of(server, found):
    return "| " + " | ".join([server.name,
                              *(found.get(column, "-") for column in ("tcp4", "tcp6", "udp4", "udp6"))]) + " |"


def test_the_table_has_each_server():
    assert sorted(table()) == sorted(server.name for server in servers.SERVERS)


