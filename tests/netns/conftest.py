# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each test runs in network and mount namespaces of its own; nothing it makes outlives it."""

import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import broker as broker_module  # noqa: E402
from harness import directory as directory_module  # noqa: E402
from harness import client, namespace, neighbours, routes, service, sessions, units, worker  # noqa: E402
from stage import Stage  # noqa: E402
from words import PORT  # noqa: E402

LIMIT = int(os.environ.get("SOCKBROKER_TEST_SECONDS", "150"))  # for one test: far more than any needs


def pytest_sessionstart():
    if os.geteuid() != 0:
        pytest.exit("the namespace tests must run as root: network namespaces and BPF need it", 2)
    if not (broker_module.BUILD / "sockbrokerd").exists():
        pytest.exit(f"no sockbrokerd in {broker_module.BUILD}: build first, or set SOCKBROKER_BUILD", 2)


def _too_long(*_):
    raise TimeoutError(f"the test did not end within {LIMIT} s")


@pytest.fixture(autouse=True)
def netns():
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT)
    try:
        with namespace.Namespace() as fresh:
            yield fresh
    finally:
        signal.alarm(0)


@pytest.fixture(name="broker")
def _broker(netns):  # pylint: disable=unused-argument
    made = broker_module.Broker()
    yield made
    made.discard()
    print(made.log())


@pytest.fixture(name="broker_with_sockets")
def _broker_with_sockets(netns):  # pylint: disable=unused-argument
    """Messages wait while it is away, as in a socket unit."""
    made = broker_module.Broker(activated=True)
    yield made
    made.discard()
    print(made.log())


@pytest.fixture
def spawn(netns):  # pylint: disable=unused-argument
    """spawn(name, uid, launched=None, gid=None): a service; all of them end with the test."""
    children = []

    def start(name, uid=61001, launched=None, gid=None):
        children.append(service.spawn(name, uid, launched, gid))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def clients(netns):  # pylint: disable=unused-argument
    """clients(targets): a client in a process of its own that asks the targets without a pause."""
    children = []

    def start(targets):
        children.append(worker.Worker(client.Client))
        children[-1].begin(targets)
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def remote(netns):  # pylint: disable=unused-argument
    """A second host, one veth away."""
    host = namespace.remote_host()
    yield host
    host.kill()


@pytest.fixture(name="directory")
def _directory(broker):
    """Of accounts, that answers as it is told."""
    return directory_module.Directory(broker)


@pytest.fixture(name="slice_")
def _slice():
    """Of units."""
    made = units.Slice()
    yield made
    made.end()


@pytest.fixture(name="serve")
def _serve(slice_):
    """serve(unit): a process in the cgroup of that unit, made when it is not there."""
    servers = []

    def start(unit="dns.service", uid=61001):
        path = slice_.path / unit
        servers.append(worker.Worker(units.Server, path if path.exists() else slice_.unit(unit), uid))
        return servers[-1]

    yield start
    for one in servers:
        one.kill()


@pytest.fixture(name="serve_game")
def _serve_game(broker):
    """serve_game(family): a new process of another uid, which is the service game from now on. (the process, its
    socket's cookie)"""
    servers = []

    def start(family):
        number = len(servers) + 1
        loopback = {"ipv4": "127.0.1.{}", "ipv6": "fd00:53::{}"}[family]
        servers.append(worker.Worker(sessions.Server, 61001 + number % 2, loopback.format(number), PORT))
        result, cookie = servers[-1].register("game")
        assert result == "ok", broker.log()
        return servers[-1], cookie

    yield start
    for one in servers:
        one.kill()


@pytest.fixture(name="stage")
def _stage(broker, spawn, remote):
    """Of the rows of docs/reliability.md."""
    return Stage(broker, spawn, remote)


@pytest.fixture(name="neighbours")
def _neighbours(netns):  # pylint: disable=unused-argument
    """Programs of other owners, loaded and not attached."""
    loaded = neighbours.Neighbours()
    yield loaded
    loaded.close()


@pytest.fixture(name="maker")
def _maker(broker):
    """The real sockbroker-routes; the test starts it."""
    made = routes.RouteMaker(broker)
    yield made
    made.discard()


@pytest.fixture(name="talk")
def _talk(broker, maker):
    """What a broker says to it, said by the test."""
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=1000000\n")
    maker.start()
    opened = routes.Talk(maker.path)
    yield opened
    opened.close()
