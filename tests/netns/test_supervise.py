# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-run --supervise: programs that bind as they always did, as an ordinary user, through the real broker."""

import http.client

import pytest

from harness import sandbox
from words import add_routes, section

UID = 61001
HTTP = "import http.server,socket,sys\nclass S(http.server.ThreadingHTTPServer): {more}\n" \
       "s=S(({at!r},{port}),http.server.SimpleHTTPRequestHandler)\nprint('serving',flush=True)\ns.serve_forever()"


def supervised(*words, options=(), **named):
    return sandbox.Sandboxed("--runtime-dir=/run/sockbroker", "--supervise", *options, *words, ambient="", **named)


def get(address, port):
    connection = http.client.HTTPConnection(address, port, timeout=5)
    connection.request("GET", "/")
    return connection.getresponse().status


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(section("web", UID, "ListenStream=192.0.2.0/24:80\n", "ListenStream=[2001:db8::]/64:80\n")).start()
    sandbox.install()
    return broker


@pytest.mark.parametrize("at", ["0.0.0.0", "192.0.2.7"])
def test_s4_a_stock_server_binds_port_80_with_no_privilege(web, at):
    with supervised("/usr/bin/python3", "-c", HTTP.format(at=at, port=80, more="pass")) as server:
        server.lines_until("serving")
        assert server.status()["CapEff"] == "0000000000000000"
        for address in ("192.0.2.7", "192.0.2.200"):
            assert get(address, 80) in (200, 404)
        [entry] = web.list()
        assert (entry["service"], entry["pid"], entry["uid"]) == ("web", server.process.pid, UID)
