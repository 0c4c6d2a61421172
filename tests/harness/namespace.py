# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fresh network and mount namespaces for the calling process, AnyIP routes in them, and a remote host by veth.

Everything a test makes (routes, a bpffs with pins, files under /run) lives in these and is gone with them.
"""

import os
import subprocess

from harness import client, kernel, worker

HOST4, HOST6 = "10.9.0.1", "fd09::1"
REMOTE4, REMOTE6 = "10.9.0.2", "fd09::2"


def run(*command, text=None):
    """Runs a command and returns its output; its error output becomes the exception."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def sysctl(name, value):
    """Sets a knob of the caller's network namespace, as net/ipv4/tcp_syncookies."""
    with open(f"/proc/sys/{name}", "w", encoding="ascii") as knob:
        knob.write(str(value))


def tcp_counter(name):
    """Of the caller's network namespace, as nstat calls it without its TcpExt."""
    with open("/proc/self/net/netstat", encoding="ascii") as file:
        names, values = (line.split() for line in (next(file), next(file)))
    return int(values[names.index(name)])


def own_uid(number=0):
    """An ordinary uid that no other network namespace of this machine has, the number-th of a thousand. The kernel
    counts some things for each uid over all namespaces, descriptors on their way (ETOOMANYREFS) above all: whoever uses
    up what one user may must not be a user of a test that runs beside."""
    inode = os.stat("/proc/self/ns/net").st_ino  # the machine's numbers of namespaces begin here (PROC_DYNAMIC_FIRST)
    # From 1879048192 to 2147352575 nobody gives out uids: UIDS-GIDS of systemd.
    return 1_900_000_000 + (inode - 0xF0000000) % 240_000 * 1000 + number


def add_local_routes(*prefixes):
    """AnyIP: the host takes packets for all of a prefix, without an address on an interface."""
    for option, mine in (("-4", [p for p in prefixes if ":" not in p]), ("-6", [p for p in prefixes if ":" in p])):
        if mine:
            run("ip", option, "-batch", "-", text="".join(f"route add local {p} dev lo\n" for p in mine))


def enter():
    """Moves the (single-threaded) caller into new namespaces: lo up, no route, an empty tmpfs on /run."""
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
    run("ip", "link", "set", "lo", "up")


class Namespace:
    """enter() for the length of a with statement."""

    def __enter__(self):
        self._saved = [(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind)
                       for name, kind in (("net", kernel.CLONE_NEWNET), ("mnt", kernel.CLONE_NEWNS))]
        self._directory = os.getcwd()
        enter()
        return self

    def __exit__(self, *_):
        for fd, kind in self._saved:
            kernel.setns(fd, kind)
            os.close(fd)
        os.chdir(self._directory)


class _RemoteHost(client.Client):
    def __init__(self):
        super().__init__(local=False)
        kernel.unshare(kernel.CLONE_NEWNET)
        run("ip", "link", "set", "lo", "up")

    def configure(self):
        run("ip", "-batch", "-", text=f"addr add {REMOTE4}/24 dev remote\n"
                                      f"addr add {REMOTE6}/64 dev remote nodad\n"
                                      "link set remote up\n"
                                      f"route add default via {HOST4}\n")
        run("ip", "-6", "route", "add", "default", "via", HOST6)



def remote_host():
    """A second host, one veth away, whose default route is the caller's namespace. Returns its Worker, a client."""
    host = worker.Worker(_RemoteHost)
    run("ip", "link", "add", "host", "type", "veth", "peer", "name", "remote", "netns", str(host.pid))
    run("ip", "-batch", "-", text=f"addr add {HOST4}/24 dev host\naddr add {HOST6}/64 dev host nodad\n"
                                  "link set host up\n")
    for name in ("all", "host"):
        sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
    host.configure()
    return host
