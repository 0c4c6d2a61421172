#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs inside a sandboxed unit: tries what the sandbox is to refuse, and prints {attempt: errno name, or null if it was
done} as one line. A call that has no name in Python is made by its number."""
import ctypes
import errno
import json
import mmap
import os
import platform
import socket

libc = ctypes.CDLL(None, use_errno=True)
X86_64 = {"ptrace": 101, "unshare": 272, "mount": 165, "bpf": 321, "keyctl": 250, "perf_event_open": 298,
          "userfaultfd": 323, "io_uring_setup": 425, "setns": 308, "pidfd_getfd": 438, "process_vm_readv": 310,
          "clone": 56, "setresuid": 117, "open_by_handle_at": 304}
CLONE_NEWUSER = 0x10000000
ARGUMENTS = {"unshare": (CLONE_NEWUSER,), "clone": (CLONE_NEWUSER | 17, 0), "ptrace": (16, 1), "setresuid": (0, 0, 0)}


def call(name: str) -> None:
    if libc.syscall(X86_64[name], *map(ctypes.c_long, ARGUMENTS.get(name, (0, 0, 0, 0)))) < 0:
        raise OSError(ctypes.get_errno(), name)


def on_passed(level: int, option: int) -> None:
    with socket.socket(fileno=os.dup(3)) if "LISTEN_FDS" in os.environ else socket.socket() as sock:
        sock.setsockopt(level, option, 1)


ATTEMPTS = {
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 17),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unix": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "transparent": lambda: on_passed(socket.IPPROTO_IP, 19),
    "freebind": lambda: on_passed(socket.IPPROTO_IP, 15),
    "mark": lambda: on_passed(socket.SOL_SOCKET, 36),
    "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "chmod": lambda: os.chmod("/tmp", 0o4755),
}

answers = {}
for attempt, act in ATTEMPTS.items():
    try:
        act()
        answers[attempt] = None
    except OSError as refusal:
        answers[attempt] = errno.errorcode[refusal.errno]
if platform.machine() == "x86_64":
    for attempt in X86_64:
        try:
            call(attempt)
            answers[attempt] = None
        except OSError as refusal:
            answers[attempt] = errno.errorcode[refusal.errno]
print(json.dumps(answers), flush=True)
