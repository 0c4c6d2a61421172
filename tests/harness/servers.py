# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock servers of Debian under sockbroker-run --supervise: how each is started, and what shows that it serves. None
knows of the broker; each binds the unspecified addresses, as it does where nothing else is said."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess

from harness import broker

FOLDER = pathlib.Path("/run/server")  # the server's own
QUERY = bytes.fromhex("123401000001000000000000") + b"\1a\1x\0\0\1\0\1"  # an A record of a.x
RECORD = bytes([192, 0, 2, 99])  # and what it is
ZONE = "$ORIGIN x.\n$TTL 60\n@ SOA ns.x. admin.x. 1 60 60 60 60\n@ NS ns.x.\nns A 192.0.2.98\na A 192.0.2.99\n"

NGINX = """\
daemon {daemon}; pid /run/server/pid; error_log stderr; worker_processes 2;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path /run/server/1; proxy_temp_path /run/server/2;
fastcgi_temp_path /run/server/3; uwsgi_temp_path /run/server/4; scgi_temp_path /run/server/5;
server {{ listen 80{more}; listen [::]:80{more}; location / {{ return 200 "served\\n"; }} }} }}
"""
HAPROXY = """\
global
  stats socket /run/server/stats mode 600 level admin expose-fd listeners
  nbthread 2
defaults
  mode http
  timeout client 10s
  timeout server 10s
  timeout connect 10s
frontend web
  bind 0.0.0.0:80
  bind [::]:80 v6only
  http-request return status 200 content-type text/plain string served
"""
HAPROXY_SHARDS = HAPROXY.replace("0.0.0.0:80", "0.0.0.0:80 shards by-thread").replace(
    "v6only", "v6only shards by-thread")
UNBOUND = """\
server:
  username: ""
  chroot: ""
  directory: "/run/server"
  pidfile: ""
  use-syslog: no
  interface: 0.0.0.0@53
  interface: ::0@53
  interface-automatic: {automatic}
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  do-daemonize: no
  num-threads: 2
  module-config: "iterator"
  local-zone: "x." static
  local-data: "a.x. A 192.0.2.99"
remote-control:
  control-enable: no
"""
KNOT = """\
server:
  rundir: /run/server
  listen: [ 0.0.0.0@53, "::@53" ]
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: /run/server
log:
  - target: stderr
    any: warning
zone:
  - domain: x
    storage: /run/server
    file: zone
    journal-content: none
    zonefile-load: whole
"""
NSD = """\
server:
  server-count: 1
  username: ""
  pidfile: ""
  database: ""
  zonesdir: /run/server
  zonelistfile: /run/server/zones
  xfrdfile: ""
  xfrdir: /run/server
remote-control:
  control-enable: no
zone:
  name: x
  zonefile: /run/server/zone
"""
NAMED = """\
options { directory "/run/server"; pid-file none; listen-on { any; }; listen-on-v6 { any; }; recursion no;
  session-keyfile none; managed-keys-directory "/run/server"; interface-interval 0; };
controls { };
zone "x" { type primary; file "/run/server/zone"; };
"""
PDNS = """\
launch=bind
module-dir=@ROOT@/usr/lib/x86_64-linux-gnu/pdns
bind-config=/run/server/zones
socket-dir=/run/server
local-address=0.0.0.0,::
disable-syslog=yes
write-pid=no
"""
RECURSOR = """\
local-address=0.0.0.0,::
socket-dir=/run/server
allow-from=0.0.0.0/0,::/0
auth-zones=x=/run/server/zone
security-poll-suffix=
disable-syslog=yes
write-pid=no
"""
LIGHTTPD = """\
server.document-root = "/run/server"
server.port = 80
index-file.names = ("index.html")
$SERVER["socket"] == "[::]:80" { }
"""
WSGI = """\
def served(_, start):
    start("200 OK", [("Content-Length", "7")])
    return [b"served\\n"]
"""
NODE = """\
const cluster = require("cluster");
if (cluster.isPrimary) { cluster.fork(); cluster.fork(); }
else require("http").createServer((request, response) => response.end("served\\n")).listen(80);
"""
# Its listeners are MPTCP ones unless the system has none: by itself from Go 1.24 on, by GODEBUG from 1.21 on.
GO = """\
package main
import ("fmt"; "net/http"; "os")
func main() {
	answer := func(writer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(writer, "served") }
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":80", http.HandlerFunc(answer)))
	os.Exit(1)
}
"""
GO_ENVIRONMENT = {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOCACHE": "/run/server/cache", "GOPATH": "/run/server/go",
                  "HOME": "/run/server", "GODEBUG": "multipathtcp=1"}


@dataclasses.dataclass
class Server:
    """Of its arguments, files and environment @ROOT@ is where its package was unpacked."""
    name: str
    package: str
    program: str
    arguments: tuple = ()
    files: dict = dataclasses.field(default_factory=dict)
    protocol: str = "http"
    port: int = 80
    options: tuple = ()  # of sockbroker-run
    share: bool = False  # its workers have sockets of their own
    local: bool = False  # it wants the addresses on an interface
    own_port: bool = False  # it closes connections to any other port, also where nothing comes between
    prepare: tuple = ()  # a command of the same user before it, of the same package
    uid: int = 61001  # or one that has a name
    environment: dict = dataclasses.field(default_factory=dict)

    def offers(self):
        """Columns of the table: (protocol, family)."""
        kinds = ("tcp", "udp") if self.protocol == "dns" else ("tcp",)
        return [(kind, family) for kind in kinds for family in ("ipv4", "ipv6")]


SERVERS = [
    Server("python http.server", "python3", "python3", ("-m", "http.server", "--bind", "::", "80")),
    Server("nginx", "nginx", "nginx", ("-e", "stderr", "-c", "/run/server/nginx.conf"),
           {"nginx.conf": NGINX.format(daemon="off", more="")}),
    Server("nginx, reuseport", "nginx", "nginx", ("-e", "stderr", "-c", "/run/server/nginx.conf"),
           {"nginx.conf": NGINX.format(daemon="off", more=" reuseport")}, share=True),
    Server("unbound", "unbound", "unbound", ("-d", "-c", "/run/server/conf"),
           {"conf": UNBOUND.format(automatic="no")}, "dns", 53,
           ("--profile=interfaces", "--bind=tcp:53", "--bind=udp:53")),
    Server("unbound, interface-automatic", "unbound", "unbound", ("-d", "-c", "/run/server/conf"),
           {"conf": UNBOUND.format(automatic="yes")}, "dns", 53,
           ("--profile=interfaces", "--bind=tcp:53", "--bind=udp:53")),
    Server("knot", "knot", "knotd", ("-c", "/run/server/conf"), {"conf": KNOT, "zone": ZONE}, "dns", 53),
    Server("nsd", "nsd", "nsd", ("-d", "-c", "/run/server/conf"), {"conf": NSD, "zone": ZONE}, "dns", 53,
           ("--profile=interfaces",)),
    Server("dnsmasq", "dnsmasq-base", "dnsmasq",
           ("--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file",
            "--log-facility=-", "--address=/a.x/192.0.2.99"), {}, "dns", 53, ("--profile=interfaces",), local=True,
           own_port=True),
    Server("bind9", "bind9", "named", ("-g", "-n", "1", "-c", "/run/server/conf"), {"conf": NAMED, "zone": ZONE}, "dns",
           53, ("--profile=interfaces", "--bind=tcp:53", "--bind=udp:53"), local=True),
    Server("HAProxy -W", "haproxy", "haproxy", ("-W", "-db", "-f", "/run/server/conf"), {"conf": HAPROXY}),
    Server("HAProxy -W, shards", "haproxy", "haproxy", ("-W", "-db", "-f", "/run/server/conf"),
           {"conf": HAPROXY_SHARDS}, share=True),
    Server("Node.js, cluster", "nodejs", "node", ("/run/server/server.js",), {"server.js": NODE},
           options=("--asked-names",)),
    Server("redis", "redis-server", "redis-server", ("--bind", "0.0.0.0", "::", "--protected-mode", "no", "--save", "",
                                                     "--dir", "/run/server"), {}, "redis", 6379),
    Server("Go, net/http", "golang-go", "/run/server/go-server", (), {"server.go": GO}, environment=GO_ENVIRONMENT,
           prepare=("go", "build", "-o", "/run/server/go-server", "/run/server/server.go")),
    Server("caddy", "caddy", "caddy", ("file-server", "--listen", ":80", "--root", "/run/server"),
           {"index.html": "served\n"}, environment={"HOME": "/run/server"}),
    Server("lighttpd", "lighttpd", "lighttpd",
           ("-D", "-m", "@ROOT@/usr/lib/lighttpd", "-f", "/run/server/conf"),
           {"conf": LIGHTTPD, "index.html": "served\n"}),
    Server("gunicorn", "gunicorn", "gunicorn", ("-w", "2", "-b", "0.0.0.0:80", "-b", "[::]:80", "wsgi:served"),
           {"wsgi.py": WSGI}, environment={"PYTHONPATH": "@ROOT@/usr/lib/python3/dist-packages:/run/server"}),
    Server("memcached", "memcached", "memcached", (), {}, "memcached", 11211),
    Server("mosquitto", "mosquitto", "mosquitto", ("-c", "/run/server/conf"),
           {"conf": "listener 1883\nallow_anonymous true\n"}, "mqtt", 1883),
    Server("Dropbear", "dropbear-bin", "dropbear", ("-F", "-E", "-p", "22", "-r", "/run/server/key", "-P",
                                                    "/run/server/pid"), {}, "ssh", 22, ("--asked-names",),
           prepare=("dropbearkey", "-t", "ed25519", "-f", "/run/server/key")),
    Server("PowerDNS", "pdns-backend-bind", "pdns_server", ("--config-dir=/run/server", "--guardian=no", "--daemon=no"),
           {"pdns.conf": PDNS, "zones": 'zone "x" { type master; file "/run/server/zone"; };\n', "zone": ZONE}, "dns",
           53, ("--profile=interfaces",)),
    Server("PowerDNS Recursor", "pdns-recursor", "pdns_recursor", ("--config-dir=/run/server", "--daemon=no"),
           {"recursor.conf": RECURSOR, "zone": ZONE}, "dns", 53,
           ("--profile=interfaces", "--bind=tcp:53", "--bind=udp:53")),
    Server("PostgreSQL", "postgresql-15", "postgres", ("-D", "/run/server/data", "-c", "listen_addresses=*", "-c",
                                                       "unix_socket_directories=/run/server"), {}, "postgres", 5432,
           prepare=("initdb", "-D", "/run/server/data", "--auth=trust", "--no-sync"), uid=33),
]


def _unpacked(package):
    """The directory, made where it is not there."""
    done = subprocess.run([broker.TOP / "tests/servers/unpack", package], capture_output=True, text=True, timeout=300,
                          check=False)
    return pathlib.Path(done.stdout.strip()) if done.returncode == 0 else None


# Before a test has a network namespace of its own, from which nothing can be downloaded.
_ROOTS = {package: _unpacked(package) for package in {server.package for server in SERVERS}
          if "SOCKBROKER_LONG" in os.environ}


def root_of(server):
    """The directory of its unpacked package; None where it is not unpacked."""
    return _ROOTS.get(server.package)


def paths(root):
    folders = ("/usr/sbin", "/usr/bin", "/usr/lib/postgresql/15/bin")
    return ":".join([*(f"{root}{folder}" for folder in folders if root), *folders])


def end(process):
    """By SIGTERM, so that it ends its workers too. nginx forgets one that comes between its listen(2) and their start,
    and then waits for the next."""
    for _ in range(5):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return
    process.kill()
    process.wait()


def program(server, name, root):
    found = shutil.which(name, path=paths(root))
    return pathlib.Path(found) if found else None


def placed(text, root):
    return text.replace("@ROOT@", str(root or ""))


def environment(server, root):
    """Its libraries, where it was unpacked."""
    libraries = ":".join(f"{root}/{folder}" for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    more = {"LD_LIBRARY_PATH": libraries} if root else {}
    return {"PATH": paths(root), "LC_ALL": "C.UTF-8", **more,
            **{name: placed(value, root) for name, value in server.environment.items()}}


# What a client sends, and what the answer must hold.
SPOKEN = {"http": (b"GET / HTTP/1.0\r\n\r\n", b"200"), "redis": (b"PING\r\n", b"+PONG"),
          "memcached": (b"version\r\n", b"VERSION"), "ssh": (b"", b"SSH-2.0-"),
          "mqtt": (bytes.fromhex("100c00044d5154540402003c0000"), bytes.fromhex("20020000")),
          "postgres": (bytes.fromhex("0000000804d2162f"), b"N"), "dns": (QUERY, RECORD)}

# In another namespace, beyond a veth. Prints who answered, in words of this module.
CLIENT = r"""
import socket, sys
kind, address, port, sent, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(bytes.fromhex, sys.argv[4:6])
seconds = float(sys.argv[6])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
if kind == "tcp":
    with socket.create_connection((address, port), seconds) as connection:
        connection.sendall(sent)
        answer = b""
        while wanted not in answer:
            data = connection.recv(4096)
            if not data:
                break
            answer += data
    print("yes" if wanted in answer else f"no: {answer!r}")
else:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(seconds)
        sock.sendto(sent, (address, port))  # not connected: an answer of any address is seen
        answer, source = sock.recvfrom(4096)
    print("no: wrong answer" if wanted not in answer else "yes" if source[0] == address and source[1] == port else
          f"no: answered by {source[0]}")
"""
