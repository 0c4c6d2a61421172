# SPDX-License-Identifier: LGPL-2.1-or-later
"""Metrics: the tool's, and those of the process that serves them over HTTP."""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import resource
import select
import signal
import socket
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from harness import broker as broker_module
from harness import client, kernel, namespace, promtool
from harness.exporter import scrape, started
from harness.pace import slowness
from harness.until import until
from test_limits import limits
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, section

HEAD = re.compile(r"# (HELP|TYPE) (sockbroker_\w+) (.+)")
SAMPLE = re.compile(r'(sockbroker_\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.e+]+)')


def parse(text, open_metrics):
    """{(name, frozenset of labels): value}; the grammar of the format is checked on the way."""
    lines = text.splitlines()
    if open_metrics:
        assert lines.pop() == "# EOF"
    types, samples = {}, {}
    for line in lines:
        head = HEAD.fullmatch(line)
        if head:
            if head[1] == "TYPE":
                assert head[2] not in types, f"{head[2]} twice"
                types[head[2]] = head[3]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        name = sample[1]
        family = name.removesuffix("_total") if open_metrics and name.endswith("_total") else name
        assert family in types and list(types)[-1] == family, f"{line} does not stand behind its head"
        assert (types[family] == "counter") == name.endswith("_total"), line
        labels = frozenset(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample[2] or ""))
        assert (name, labels) not in samples, line
        samples[name, labels] = float(sample[3])
    return samples


def value(samples, name, **labels):
    return samples[f"sockbroker_{name}", frozenset(labels.items())]


@pytest.fixture(name="exporter")
def _exporter(broker):
    with started(broker) as url:
        yield url


def test_what_the_metrics_say(broker, spawn, exporter):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "Accounting=binding") + section("dns", 61002, everywhere(9)))
    broker.start()
    one = spawn("web", 61001)
    handed_over(one, "tcp", "ipv4")
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    with pytest.raises(ConnectionRefusedError):
        client.ask("tcp", ADDRESS["ipv4"], 9)
    assert spawn("dns", 61005).control("FDSTORE=1\nFDNAME=dns").result == "malformed"
    broker.policy("Nonsense\n", "60-bad.conf")
    assert broker.reload()[0] == 1
    kind, text = scrape(exporter, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    samples = parse(text, open_metrics=True)
    assert value(samples, "up") == value(samples, "degraded") == 1
    assert value(samples, "service_lookups_total", service="web") == 1
    assert value(samples, "service_no_socket_total", service="dns") == 1
    assert value(samples, "service_sockets", service="web", state="live") == 1
    assert value(samples, "service_bindings", service="web") == 4
    assert value(samples, "service_bindings_without_socket", service="web") == 3, "all but TCP over IPv4"
    assert value(samples, "service_bindings_without_socket", service="dns") == 4
    assert value(samples, "reloads_total", result="refused") == 1
    assert value(samples, "refusals_total", result="malformed") == 1
    assert value(samples, "capacity_used", resource="sockets") == 1
    assert value(samples, "capacity", resource="bindings") == 65536
    assert value(samples, "service_accept_queue_limit", service="web") > 0
    assert value(samples, "binding_lookups_total", service="web",
                 binding=f"{broker.config}/conf.d/50-test.conf:3") == 1
    kind, text = scrape(exporter)
    assert kind.startswith("text/plain; version=0.0.4")
    assert value(parse(text, open_metrics=False), "service_lookups_total", service="web") == 1
    labels = {label for _, pairs in parse(text, open_metrics=False) for _, label in pairs}
    assert not [label for label in labels if re.search(rf"{ADDRESS['ipv4']}|\b{one.pid}\b", label)]
    status, text = broker.ctl("metrics")
    assert status == 0 and value(parse(text, open_metrics=True), "up") == 1


def test_connections_that_the_door_refuses_are_counted_and_in_the_journal(broker, exporter):
    """32 of a user are open, 256 more wait; the others hear why, and so does the operator."""
    broker.policy("").start()
    uid = namespace.own_uid()
    refused = 50
    with contextlib.ExitStack() as stack:
        for number in range(32 + 256 + refused):
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            with kernel.acting_as(uid):
                one.connect(broker.control_path)
            one.settimeout(broker_module.TIMEOUT)
            if number >= 32 + 256:
                assert one.recv(4096).startswith(b"RESULT=rate-limited\n") and one.recv(4096) == b""
        until("the door to tell of all", lambda: broker.status()[0]["connections_refused"] == refused)
    found = broker.wait_log(rf"turn-away: (\d+) connections? of uid {uid} to control w\w+ refused, unread: it has .*\n")
    assert 1 <= int(found[1]) <= refused and found[0].endswith(f"(uid={uid})\n")
    assert broker.log().count("turn-away: ") == 1, "one entry of a user in 30 s"
    assert broker.status()[0]["refused"] == 0, "no request was"
    assert f"0 requests, {refused} connections\n" in broker.ctl("status")[1]
    assert value(parse(scrape(exporter)[1], open_metrics=False), "connections_refused_total") == refused


@promtool.needed
def test_promtool_has_nothing_to_say_of_the_metrics(broker, spawn, exporter):
    broker.policy(section("web", 61001, everywhere(), "Accounting=binding", "Announce=any")).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    assert promtool.run("check", "metrics", text=scrape(exporter)[1]) == (0, "")


def test_without_a_broker_it_is_down_and_what_the_kernel_counts_goes_on(broker, exporter):
    broker.policy(section("web", 61001, everywhere())).start()
    assert value(parse(scrape(exporter)[1], open_metrics=False), "up") == 1
    broker.stop()
    samples = parse(scrape(exporter)[1], open_metrics=False)
    assert value(samples, "up") == 0 and value(samples, "service_lookups_total", service="web") == 0
    assert broker.ctl("metrics")[0] == 3


def test_connections_that_send_no_whole_request_keep_nobody_from_the_metrics(broker, exporter):
    broker.start()
    with contextlib.ExitStack() as idle:
        for _ in range(100):
            one = idle.enter_context(socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(exporter).port), 10))
            one.sendall(b"GET /metrics HTTP/1.1\r\n")
        with urllib.request.urlopen(f"{exporter}/metrics", timeout=5) as response:  # sooner than idle ones end
            assert value(parse(response.read().decode(), open_metrics=False), "up") == 1


def test_other_questions_than_that_are_answered_shortly(exporter):
    for path, status in {"/": 200, "/etc/passwd": 404, "/metrics/../x": 404}.items():
        try:
            with urllib.request.urlopen(exporter + path, timeout=10) as response:
                assert response.status == status
        except urllib.error.HTTPError as error:
            assert error.code == status
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{exporter}/metrics", data=b"x" * 100_000), timeout=10)
    assert refused.value.code == 405


def test_a_client_that_says_nothing_keeps_no_other_waiting(broker, exporter):
    broker.policy("").start()
    host, port = exporter.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    begun = time.monotonic()
    assert "sockbroker_up 1" in scrape(exporter)[1]
    assert time.monotonic() - begun < 5
    for one in silent:
        one.close()


def test_all_who_ask_while_the_broker_hangs_are_answered_when_the_first_one_is(broker, exporter):
    broker.policy("").start()
    os.kill(broker.process.pid, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        texts = list(pool.map(lambda _: scrape(exporter)[1], range(5)))  # each waits for ten seconds at most
    os.kill(broker.process.pid, signal.SIGCONT)
    assert all("sockbroker_up 0" in text for text in texts)


def test_clients_that_read_nothing_share_few_pages(broker, exporter):
    namespace.sysctl("net/ipv4/tcp_wmem", "4096 16384 65536")  # or the kernel has room for whole pages
    limits(broker, MaxServices=2000)
    broker.policy("".join(section(f"s{n}", 61001, f"ListenStream=10.0.{n // 250}.{n % 250}/32:80")
                          for n in range(2000))).start()
    page = len(scrape(exporter)[1])
    before = resident(exporter)
    with contextlib.ExitStack() as deaf:
        for _ in range(30):
            one = deaf.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", urllib.parse.urlsplit(exporter).port))
            one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert select.select([one], [], [], 10)[0]
        assert resident(exporter) - before < 8 * page
    assert "s1999" in scrape(exporter)[1]


def resident(exporter):
    """Bytes of the process that listens there."""
    port = urllib.parse.urlsplit(exporter).port
    shown = namespace.run("ss", "-Htlnp", "sport", "=", f":{port}")
    pid = int(re.search(r'"sockbroker-expo[^"]*",pid=(\d+)', shown)[1])
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def test_a_scrape_of_a_thousand_services_is_quick(broker, exporter):
    broker.policy("".join(section(f"s{n}", 61001, f"ListenStream=10.0.{n // 250}.{n % 250}/32:80")
                          for n in range(1000)))
    broker.start()
    scrape(exporter)
    # Beside other tests: one of them is as quick as all are on an idle machine.
    enough = 0.05 * slowness()
    assert any(_timed(exporter) < enough for _ in range(200))


def _timed(exporter):
    begun = time.monotonic()
    assert "s999" in scrape(exporter)[1]
    print(f"a scrape took {1000 * (time.monotonic() - begun):.1f} ms")
    return time.monotonic() - begun
