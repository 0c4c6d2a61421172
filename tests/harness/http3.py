# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock servers and clients of HTTP/3, unpacked from Debian's packages and not installed: nginx, ngtcp2 and curl as
Debian 13 has them, and this Debian's caddy. Servers run under sockbroker-run --supervise and know nothing of the
broker."""

import dataclasses
import json
import os
import pathlib
import subprocess

from harness import broker, namespace, sandbox, servers, units

PORT = 443
FOLDER = pathlib.Path("/run/http3")
CLIENT = broker.TOP / "tests/servers/http3.py"
SLOW_SIZE = 1 << 30

NGINX = """\
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_timeout 600; keepalive_requests 1000000; client_body_temp_path {folder}/1;
proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
server {{ listen 443 quic; listen [::]:443 quic; ssl_certificate {common}/certificate; ssl_certificate_key {common}/key;
location / {{ return 200 "{number}\\n"; }}
location = /slow {{ root {common}; limit_rate 200k; }} }} }}
"""
NGINX_WORKERS = NGINX.replace("worker_processes 1;", "worker_processes 2;").replace(" quic;", " quic reuseport;")
CADDY = """\
{{
	admin off
	auto_https off
}}
https://:443 {{
	tls {common}/certificate {common}/key
	respond "{number}
"
}}
"""


@dataclasses.dataclass
class Kind:
    package: str
    suite: str  # "": this Debian's
    program: str
    arguments: tuple
    sockets: int  # of TCP too, which caddy wants; for both families, or one for each
    files: dict


KINDS = {
    "nginx": Kind("nginx", "trixie", "usr/sbin/nginx", ("-e", "stderr", "-c", "{folder}/conf"), 2, {"conf": NGINX}),
    "nginx, reuseport": Kind("nginx", "trixie", "usr/sbin/nginx", ("-e", "stderr", "-c", "{folder}/conf"), 4,
                             {"conf": NGINX_WORKERS}),
    "ngtcp2": Kind("ngtcp2-server", "trixie", "usr/sbin/gtlsserver",
                   ("-q", "--no-quic-dump", "--no-http-dump", "--timeout=600s", "--mime-types-file=/dev/null",
                    "--htdocs={folder}", "*", str(PORT), "{common}/key", "{common}/certificate"), 2,
                   {"index.html": "{number}\n"}),
    "caddy": Kind("caddy", "", "usr/bin/caddy", ("run", "--adapter", "caddyfile", "--config", "{folder}/conf"), 2,
                  {"conf": CADDY}),
}


def unpacked(suite, *packages):
    """The directory that has them, or why it is not there: a string."""
    done = subprocess.run([broker.TOP / "tests/servers/unpack", *([f"--suite={suite}"] if suite else []), *packages],
                          capture_output=True, text=True, timeout=500, check=False)
    if done.returncode != 0:
        return f"{packages} are not to be had here: {done.stderr.strip().splitlines()[-1:]}"
    return pathlib.Path(done.stdout.strip())


def command(root, suite, program, *arguments):
    """Of another Debian: with its own loader and libraries."""
    if not suite:
        return [str(root / program), *arguments]
    return [str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", str(root / "usr/lib/x86_64-linux-gnu"),
            str(root / program), *arguments]


def prepare():
    """Where ordinary users may read: a key, and a large file."""
    FOLDER.mkdir(mode=0o755)
    namespace.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                  "-days", "2", "-subj", "/CN=sockbroker", "-keyout", str(FOLDER / "key"),
                  "-out", str(FOLDER / "certificate"))
    (FOLDER / "key").chmod(0o644)
    with open(FOLDER / "slow", "wb") as file:
        file.truncate(SLOW_SIZE)


class Server:
    """One instance, in the cgroup of a unit and with no privilege."""

    def __init__(self, kind, root, number, cgroup, uid):
        self.number = number
        folder = FOLDER / str(number)
        folder.mkdir()
        os.chown(folder, uid, uid)
        words = {"folder": folder, "common": FOLDER, "number": number}
        for name, text in kind.files.items():
            (folder / name).write_text(text.format(**words))
        run = sandbox.command("--supervise", *command(root, kind.suite, kind.program,
                                                      *(one.format(**words) for one in kind.arguments)),
                              ambient="", uid=uid)
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                units.command_in(cgroup, *run), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin", "HOME": str(folder)}, cwd=folder)

    def said(self):
        return self.log.read_text(errors="replace")[-3000:]

    def end(self):
        servers.end(self.process)


class Sessions:
    """What curl keeps, in this network namespace: tests/servers/http3.py."""

    def __init__(self, root, pattern):
        environment = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(root / "usr/lib/python3/dist-packages")}
        self.process = subprocess.Popen(command(root, "trixie", "usr/bin/python3", str(CLIENT), pattern),
                                        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["lost"], {int(server): count for server, count in answer["served"].items()}

    def begin(self, count):
        """How many are lost of all so far, and how many each server has of the others."""
        return self._ask(f"begin {count}")

    def round(self, seconds=20):
        return self._ask(f"round {seconds}")

    def end(self):
        self.process.kill()
        self.process.communicate()


class Download:
    """By ngtcp2's client: one answer that has no end, a few bytes at a time."""

    def __init__(self, root, address, folder):
        folder.mkdir()
        self.file = folder / "slow"
        host = f"[{address}]" if ":" in address else address
        self.process = subprocess.Popen(
            command(root, "trixie", "usr/bin/gtlsclient", "-q", "--no-quic-dump", "--no-http-dump", "--timeout=600s",
                    f"--download={folder}", address, str(PORT), f"https://{host}/slow"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def size(self):
        return self.file.stat().st_size if self.file.exists() else 0

    def end(self):
        self.process.kill()
        self.process.wait()
