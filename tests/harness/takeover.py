# SPDX-License-Identifier: LGPL-2.1-or-later
"""What hostile code inside the broker meets: the attempts of tests/sandbox/takeover.cc, and what becomes of each."""

import ctypes
import errno
import os
import re

EPERM, EACCES, EEXIST, ENOSYS = errno.EPERM, errno.EACCES, errno.EEXIST, errno.ENOSYS
# 0: it can. docs/security.md tells of each of those.
MEETS = {
    "load-a-program": EPERM, "make-a-map": EPERM, "open-a-pin": EPERM, "make-a-pin-elsewhere": EACCES,
    "open-a-map-by-id": EPERM,
    "open-a-program-by-id": EPERM, "update-a-link": EPERM, "io_uring": ENOSYS, "perf-event": ENOSYS,
    "userfaultfd": ENOSYS, "keyring": ENOSYS, "set-the-clock": ENOSYS,
    "read-shadow": EACCES, "read-roots-home": EACCES, "list-homes": EACCES, "read-var": EACCES, "read-devices": EACCES,
    "read-opt": EACCES, "write-tmp": EACCES, "write-run": EACCES, "write-a-policy": EACCES,
    "write-etc": errno.EROFS if os.statvfs("/etc").f_flag & os.ST_RDONLY else EACCES,
    "write-shm": EACCES, "write-own-code": EEXIST, "write-a-sysctl": EEXIST, "overwrite": EPERM, "append": EPERM,
    "make-a-folder": ENOSYS,
    "make-a-link": ENOSYS, "make-a-socket-file": EACCES, "chmod-a-pin": ENOSYS, "chown-a-pin": ENOSYS,
    "remove-a-socket-of-the-broker": EACCES, "move-a-pin-out": EACCES,
    "tcp-socket": EPERM, "udp-socket": EPERM, "raw-socket": EPERM, "packet-socket": EPERM, "netfilter": EPERM,
    "transparent": EPERM, "mark": EPERM, "listen": ENOSYS, "interface-down": EPERM, "abstract-socket": EPERM,
    "kill": EPERM, "tgkill": EPERM, "kill-by-pidfd": EPERM, "take-a-descriptor": ENOSYS, "read-its-memory": EACCES,
    "fork": EPERM, "vfork": ENOSYS, "clone3": ENOSYS,
    "user-namespace": ENOSYS, "clone-into-user-namespace": EPERM, "enter-a-namespace": ENOSYS, "mount": ENOSYS,
    "chroot": ENOSYS,
    "capset-cap-bpf": EPERM, "ambient-cap-bpf": EPERM, "securebits": EPERM, "become-root": ENOSYS,
    "another-filter": ENOSYS, "core-and-ptrace": EPERM,
    "map-executable": EPERM, "make-executable": EPERM, "map-a-file-executable": EPERM, "pkey": ENOSYS,
    "can-read-accounts": 0, "can-read-processes": 0, "can-write-its-state": 0, "can-write-maps": 0,
    "add-a-route": EPERM, "can-end-dispatch": 0,
}
# What hostile code inside sockbrokerd --load can do in its unit. docs/security.md tells of it.
LOAD_CAN = {"load-a-program", "make-a-map", "open-a-pin", "capset-cap-bpf", "core-and-ptrace", "can-write-maps",
            "can-end-dispatch",
            "chmod-a-pin", "can-read-accounts", "read-devices", "write-tmp", "append", "overwrite",
            "map-a-file-executable"}
DEADLY = ["exec", "execveat", "ptrace", "read-memory", "write-memory", "load-a-module", "another-kernel",
          "foreign-architecture"]


def landlock_version():
    """Of this kernel; 0: it has none. landlock_create_ruleset(2) is system call 444 on every architecture."""
    return max(0, ctypes.CDLL(None).syscall(ctypes.c_long(444), None, ctypes.c_size_t(0), 1))


def meets():
    """MEETS on this kernel."""
    return MEETS if landlock_version() >= 6 else MEETS | {"abstract-socket": 0}


def met(log):
    """From lines "takeover NAME ERRNO" to numbers by name."""
    told = {name: int(number) for name, number in re.findall(r"^takeover (\S+) (\d+)$", log, re.M)}
    assert told.pop("end", None) == 0, "it did not come to its end"
    return told
