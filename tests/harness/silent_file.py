# SPDX-License-Identifier: LGPL-2.1-or-later
"""A file of a FUSE server that answers everything but reads, as any local user can have one: in namespaces of his own.
Who writes from its memory sleeps, with whatever lock the write keeps, until the server ends."""

import contextlib
import ctypes
import errno
import mmap
import os
import signal
import struct
import threading

from harness import kernel

DEVICE = "/run/fuse"
MOUNTED = "/run/silent"
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
PR_SET_DUMPABLE = 4
LOOKUP, GETATTR, OPEN, READ, FLUSH, INIT, FORGET = 1, 3, 14, 15, 25, 26, (2, 36, 42)
FILE = 2  # its inode number

_libc = ctypes.CDLL(None, use_errno=True)


def make_device():
    """As root, in the mount namespace of the test."""
    os.mknod(DEVICE, 0o020666, os.makedev(10, 229))
    os.chmod(DEVICE, 0o666)
    os.mkdir(MOUNTED)
    os.chmod(MOUNTED, 0o777)


def enter_namespaces():
    """As an ordinary user, who is root in there."""
    uid, gid = os.getuid(), os.getgid()
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _attributes(inode):
    mode = 0o100644 if inode == FILE else 0o40755
    return struct.pack("<6Q10I", inode, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _serve(device, silent, flush_after, flushes, silent_to, content):
    replies = {
        READ: lambda _: os.read(content, 4096),
        INIT: lambda _: struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 12, 9, 65536, 1, 0, 0, 0, *[0] * 7),
        LOOKUP: lambda _: struct.pack("<QQQQII", FILE, 0, 3600, 3600, 0, 0) + _attributes(FILE),
        GETATTR: lambda inode: struct.pack("<QII", 3600, 0, 0) + _attributes(inode),
        OPEN: lambda _: struct.pack("<QII", 1, 0, 0),
    }
    def reply(unique, error, body=b""):
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)

    with contextlib.suppress(OSError):
        while True:
            _, operation, unique, inode, uid = struct.unpack_from("<IIQQI", os.read(device, 1 << 18))
            if operation in FORGET or (operation in silent and silent_to in (None, uid)):
                continue
            if operation == FLUSH and flushes >= 0:
                os.write(flushes, b".")
                threading.Timer(flush_after, reply, (unique, 0)).start()
                continue
            body = replies[operation](inode) if operation in replies else b""
            reply(unique, 0 if operation in replies or operation == FLUSH else -38, body)  # ENOSYS
    os._exit(0)


class SilentFile:
    """Of this process, after enter_namespaces(). With `flushes`, a pipe to which each close(2) writes a byte, a close
    takes so many seconds. With `silent_to`, a uid, all others are answered. Where reads are not silent, one is answered
    with what comes from `content`, a pipe, when it comes. If it is `shared`, others than its owner may ask."""

    def __init__(self, silent=(READ,), path=MOUNTED, opened=True, flush_after=0.0, flushes=-1, silent_to=None,
                 content=-1, shared=False):
        self.path = f"{path}/file"
        device = os.open(DEVICE if os.path.exists(DEVICE) else "/dev/fuse", os.O_RDWR)
        kernel.mount("silent", path, "fuse", 6, f"fd={device},rootmode=40000,user_id=0,group_id=0" +
                     ",allow_other" * shared)
        self.server = os.fork()
        if self.server == 0:
            _serve(device, silent, flush_after, flushes, silent_to, content)
        os.close(device)
        self.fd = os.open(self.path, os.O_RDONLY) if opened else -1

    def memory(self):
        return mmap.mmap(self.fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ)

    def end(self):
        os.kill(self.server, signal.SIGKILL)
        os.waitpid(self.server, 0)


OPENDIR, READDIR = 27, 28


def _serve_directory(device):
    def reply(unique, error, body=b""):
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)

    entry = struct.pack("<QQII8s", FILE, 1, 6, 8, b"a.conf")
    with contextlib.suppress(OSError):
        while True:
            request = os.read(device, 1 << 18)
            _, operation, unique, inode = struct.unpack_from("<IIQQ", request)
            if operation in FORGET:
                continue
            if operation == INIT:
                reply(unique, 0, struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 12, 9, 65536, 1, 0, 0, 0, *[0] * 7))
            elif operation == GETATTR:
                reply(unique, 0, struct.pack("<QII", 3600, 0, 0) + _attributes(inode))
            elif operation == OPENDIR:
                reply(unique, 0, struct.pack("<QII", 1, 0, 0))
            elif operation == READDIR:
                _, offset = struct.unpack_from("<QQ", request, 40)
                reply(unique, 0, entry) if offset == 0 else reply(unique, -errno.EIO)
            else:
                reply(unique, -errno.ENOSYS)
    os._exit(0)


@contextlib.contextmanager
def broken_directory(path):
    """As root: a directory there that lists one file, and then fails."""
    device = os.open(DEVICE, os.O_RDWR)
    kernel.mount("broken", str(path), "fuse", 6, f"fd={device},rootmode=40000,user_id=0,group_id=0")
    server = os.fork()
    if server == 0:
        _serve_directory(device)
    os.close(device)
    try:
        yield
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
