# SPDX-License-Identifier: LGPL-2.1-or-later
"""HTTP/3 of stock servers and clients over hand-overs: nginx, caddy and ngtcp2's server, which know nothing of the
broker, and sessions of curl and ngtcp2's client. UdpReply=original and UdpFlows=stay together, as docs/udp.md says."""

import pathlib
import signal

import pytest

from harness import http3, long, namespace, sandbox
from harness.until import until
from waiting import inside
from words import PREFIXES, add_routes, listen

SESSIONS, HANDOVERS = (1000, 100) if long.LONG else (100, 10)  # half of them in each family
DOWNLOADS = 10 if long.LONG else 2
PATTERNS = {"ipv4": "https://192.0.2.{}/", "ipv6": "https://[2001:db8::{}]/"}
UNIT = "web.service"
USERS = 61001, 61002


@pytest.fixture(name="roots", scope="module")
def _roots():
    """The directory of each suite's packages."""
    found = {"trixie": http3.unpacked("trixie", "nginx", "ngtcp2-server", "ngtcp2-client", "python3-pycurl")}
    if long.LONG:
        found[""] = http3.unpacked("", "caddy")
    for why in found.values():
        if isinstance(why, str):
            pytest.skip(why)
    return found


@pytest.fixture(name="hand_over")
def _hand_over(broker, roots, slice_):
    """hand_over(kind): one more instance, of the other user, which serves from now on."""
    cgroup = slice_.unit(UNIT)
    servers = []

    def start(kind):
        number = len(servers) + 1
        one = http3.Server(http3.KINDS[kind], roots[http3.KINDS[kind].suite], number, cgroup, USERS[number % 2])
        servers.append(one)
        until("it serves", lambda: one.process.poll() is not None or http3.KINDS[kind].sockets == sum(
            (row["pid"], row["state"]) == (one.process.pid, "live") for row in broker.list()))
        assert one.process.poll() is None, one.said()
        return number

    start.servers = servers
    yield start
    for one in servers:
        one.end()


@pytest.fixture(name="dial")
def _dial(remote, roots):
    """dial(): sessions of each family on another host; dial.download(address)."""
    made = []

    def sessions():
        with inside(remote.pid):
            made.extend(http3.Sessions(roots["trixie"], pattern) for pattern in PATTERNS.values())
        return made[-2:]

    def download(address):
        with inside(remote.pid):
            made.append(http3.Download(roots["trixie"], address, http3.FOLDER / f"download{len(made)}"))
        return made[-1]

    sessions.download = download
    yield sessions
    for one in made:
        one.end()


def begin(broker, *more, reply="UdpReply=original\n"):
    signal.alarm(900 if long.LONG else 300)
    add_routes()
    bindings = "".join(listen(protocol, prefix, http3.PORT) for protocol in ("udp", "tcp")
                       for prefix in PREFIXES.values())
    broker.policy(f"[Service web]\nUnit={UNIT}\n{bindings}{reply}MaxSockets=250\n" + "".join(more)).start()
    sandbox.install()
    http3.prepare()


KINDS = ["nginx", "ngtcp2",
         pytest.param("caddy", marks=pytest.mark.skipif(not long.LONG, reason="large: SOCKBROKER_LONG"))]


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_of_http3_over_many_hand_overs(broker, hand_over, dial, kind):
    """Each request is answered on its session's one connection, by the instance that has had it from the start."""
    begin(broker, "UdpFlows=stay\n")
    hand_over(kind)
    wanted = {1: SESSIONS // 2}
    clients = dial()
    for one in clients:
        assert one.begin(SESSIONS // 2) == (0, wanted)
        assert one.round() == (0, wanted)
    downloads = []
    if kind == "nginx":
        downloads = [dial.download(PATTERNS["ipv6" if i % 2 else "ipv4"][8:-1].strip("[]").format(200 + i))
                     for i in range(DOWNLOADS)]
    for _ in range(HANDOVERS):
        wanted[hand_over(kind)] = 1
        for one in clients:
            assert one.begin(1) == (0, wanted), "a new session is the newest's"
            assert one.round() == (0, wanted)
        sizes = {one: one.size() for one in downloads}
        until("each download goes on", lambda sizes=sizes: all(one.size() > size for one, size in sizes.items()))
    print(f"{kind}: 0 of {sum(wanted.values()) * 2 + len(downloads)} sessions lost over {HANDOVERS} hand-overs")


@pytest.mark.parametrize("kind", long.some(["nginx", "ngtcp2", "caddy"], "nginx"))
def test_without_stay_the_first_hand_over_ends_all_sessions(broker, hand_over, dial, kind):
    begin(broker)
    hand_over(kind)
    clients = dial()
    for one in clients:
        assert one.begin(SESSIONS // 2) == (0, {1: SESSIONS // 2})
    hand_over(kind)
    for one in clients:
        assert one.round(seconds=2) == (SESSIONS // 2, {})
        assert one.begin(1) == (SESSIONS // 2, {2: 1})


@pytest.mark.parametrize("kind", KINDS)
def test_which_server_sets_the_source_of_its_answers_itself(broker, hand_over, dial, kind):
    """The table of docs/udp.md: of these all but caddy. Without UdpReply=original, which lets it bind the port too."""
    namespace.sysctl("net/ipv4/ip_unprivileged_port_start", http3.PORT)
    begin(broker, reply="")
    hand_over(kind)
    for one in dial():
        assert one.begin(5) == ((5, {}) if kind == "caddy" else (0, {1: 5}))


def test_workers_of_nginx_that_have_sockets_of_their_own_keep_their_sessions(broker, hand_over, dial):
    """Two in each instance, and new sessions are spread over all."""
    begin(broker, "UdpFlows=stay\nHandover=share\n")
    clients = dial()
    for _ in range(3):
        hand_over("nginx, reuseport")
        for one in clients:
            assert one.begin(50)[0] == 0
            assert one.round()[0] == 0


def test_a_reload_of_nginx_ends_its_sessions(broker, hand_over, dial):
    """Without sockbroker too: new workers read the same socket, and do not know what the old ones had; these close what
    is idle."""
    begin(broker, "UdpFlows=stay\n")
    hand_over("nginx")
    process = hand_over.servers[0].process
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    clients = dial()
    for one in clients:
        assert one.begin(10) == (0, {1: 10})
    [old] = children.read_text().split()
    process.send_signal(signal.SIGHUP)
    until("there is a new worker", lambda: children.read_text().split() not in ([], [old]))
    for one in clients:
        until("all are lost", lambda one=one: one.round(seconds=2) == (10, {}))
