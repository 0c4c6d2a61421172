# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers that people run, under the profiles that docs/sandbox.md names for them: those that are installed here. Each
one listens, answers, starts what it starts (workers, threads, helpers) and ends when it is told to."""

import os
import pathlib
import shutil
import signal
import socket
import time

import pytest

from harness import namespace, sandbox
from words import section

FOLDER = pathlib.Path("/run/server")  # the server's own
PATHS = os.environ.get("PATH", "") + ":/usr/sbin"

NGINX = """\
daemon off; pid /run/server/pid; error_log stderr; worker_processes 2;
events { worker_connections 64; }
http { access_log off; client_body_temp_path /run/server/1; proxy_temp_path /run/server/2;
fastcgi_temp_path /run/server/3; uwsgi_temp_path /run/server/4; scgi_temp_path /run/server/5;
server { listen 127.0.0.1:8080; location / { return 200 "served\\n"; } } }
"""
UNBOUND = """\
server:
  username: ""
  chroot: ""
  directory: "/run/server"
  pidfile: ""
  use-syslog: no
  interface: 127.0.0.1@8053
  do-daemonize: no
  num-threads: 2
  module-config: "iterator"
  local-zone: "x." static
  local-data: "a.x. A 192.0.2.1"
remote-control:
  control-enable: no
"""
PYTHON = """\
import asyncio, ssl, subprocess, threading
assert subprocess.run(["/bin/echo", "hi"], capture_output=True, check=True).stdout == b"hi\\n"
threading.Thread(target=ssl.create_default_context).start()
async def serve(reader, writer):
    await reader.readline()
    writer.write(b"HTTP/1.0 200 OK\\r\\n\\r\\nserved\\n")
    await writer.drain()
    writer.close()
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 8080) as server:
        await server.serve_forever()
asyncio.run(main())
"""
NODE = """\
require("child_process").execSync("true"); new (require("worker_threads").Worker)("1 + 1", {eval: true});
require("http").createServer((request, response) => response.end("served\\n")).listen(8080, "127.0.0.1");
"""
QUERY = bytes.fromhex("123401000001000000000000") + b"\1a\1x\0\0\1\0\1"  # an A record of a.x


def program(name):
    found = shutil.which(name, path=PATHS)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def until(ask, process):
    """Asks until somebody listens."""
    deadline = time.monotonic() + sandbox.TIMEOUT
    while True:
        try:
            return ask()
        except (ConnectionRefusedError, TimeoutError):
            assert process.poll() is None, process.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)  # a server that begins to listen makes no event


def get(address="127.0.0.1", port=8080):
    with socket.create_connection((address, port), timeout=sandbox.TIMEOUT) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while part := sock.recv(4096):
            answer += part
    return answer


def query():
    with socket.create_connection(("127.0.0.1", 8053), timeout=sandbox.TIMEOUT) as sock:
        sock.sendall(len(QUERY).to_bytes(2, "big") + QUERY)
        by_tcp = sock.recv(512)[2:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(sandbox.TIMEOUT)
        sock.connect(("127.0.0.1", 8053))
        sock.send(QUERY)
        by_udp = sock.recv(512)
    return by_tcp, by_udp


@pytest.fixture(autouse=True)
def folder(netns):  # pylint: disable=unused-argument
    FOLDER.mkdir()
    os.chown(FOLDER, 61001, 61001)
    (FOLDER / "nginx.conf").write_text(NGINX)
    (FOLDER / "unbound.conf").write_text(UNBOUND)


def ends_when_told(server):
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(sandbox.TIMEOUT)
    return server.process.returncode


@pytest.mark.parametrize("words", [["python3", "-c", PYTHON], ["node", "-e", NODE],
                                   ["nginx", "-e", "stderr", "-c", FOLDER / "nginx.conf"]], ids=lambda words: words[0])
def test_a_web_server_runs_under_the_default_profile(words):
    path = "/usr/bin/python3" if words[0] == "python3" else program(words[0])
    sandbox.install()
    with sandbox.Sandboxed(path, *words[1:], ambient="") as server:
        assert until(get, server.process).endswith(b"\r\n\r\nserved\n")
        assert ends_when_told(server) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("words", [
    ["unbound", "-d", "-c", FOLDER / "unbound.conf"],
    ["dnsmasq", "-k", "-C", "/dev/null", "-p", "8053", "--listen-address=127.0.0.1", "--bind-interfaces",
     "--log-facility=-", "--user=", "--pid-file=", "-A", "/a.x/192.0.2.1"]], ids=lambda words: words[0])
def test_a_name_server_runs_under_the_profile_interfaces(words):
    path = program(words[0])
    sandbox.install()
    with sandbox.Sandboxed("--profile=interfaces", path, *words[1:], ambient="") as server:
        for answer in until(query, server.process):
            assert answer.endswith(b"\x00\x04" + socket.inet_aton("192.0.2.1"))
        assert ends_when_told(server) == 0


@pytest.mark.parametrize("profile", ["default", "strict"])
def test_nginx_takes_its_listener_from_the_launcher_and_serves_prefixes(broker, monkeypatch, profile):
    """NGINX= is how nginx passes listeners to its next instance: with it, it makes none itself."""
    path = program("nginx")
    namespace.add_local_routes("192.0.2.0/24")
    broker.policy(section("web", 61001, "ListenStream=192.0.2.0/24:80\n")).start()
    sandbox.install()
    monkeypatch.setenv("NGINX", "3:;")
    with sandbox.Sandboxed(f"--profile={profile}", "--service=web", "--listen-stream=127.0.0.1:8080", path, "-e",
                           "stderr", "-c", FOLDER / "nginx.conf", ambient="") as server:
        assert until(lambda: get("192.0.2.77", 80), server.process).endswith(b"served\n")
        assert ends_when_told(server) == 0
