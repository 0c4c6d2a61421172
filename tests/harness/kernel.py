# SPDX-License-Identifier: LGPL-2.1-or-later
"""System calls and numbers that Python 3.11 has no name for. Knows nothing of sockbroker."""

import contextlib
import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
PR_SET_PDEATHSIG = 1
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# Socket options and control messages (include/uapi/linux/in.h, in6.h, asm-generic/socket.h).
IP_PKTINFO = 8
IP_RECVERR = 11
IP_FREEBIND = 15
IP_TRANSPARENT = 19
IP_RECVORIGDSTADDR = IP_ORIGDSTADDR = 20
IP_BIND_ADDRESS_NO_PORT = 24
IPV6_ADDRFORM = 1
IPV6_RECVERR = 25
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IPV6_RECVORIGDSTADDR = IPV6_ORIGDSTADDR = 74
IPV6_TRANSPARENT = 75
IPV6_FREEBIND = 78
SO_RCVBUFFORCE = 33
SO_ATTACH_REUSEPORT_EBPF = 52
SO_COOKIE = 57
IPPROTO_MPTCP = 262


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags):
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd, kind=0):
    _check(_libc.setns(fd, kind), f"setns({kind:#x})")


def mount(source, target, kind, flags=0, data=""):
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), data.encode()), f"mount {kind} on {target}")


def pidfd_getfd(pidfd, number):
    """A duplicate of another process's descriptor (pidfd_getfd(2), system call 438 on every architecture)."""
    return _check(_libc.syscall(ctypes.c_long(438), pidfd, number, 0), "pidfd_getfd")


def prctl(option, *arguments):
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)][:4]
    return _check(_libc.prctl(option, *padded), f"prctl({option})")


def die_with_parent(signal):
    """Kills the caller when its parent ends. Forgotten by the kernel when credentials change: call it after that."""
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        os._exit(1)


def drop_privileges(uid, gid):
    """Becomes an ordinary user with no way back: no capability in any set, no gain by execve."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_READ, capability)
        except OSError:
            break
        prctl(PR_CAPBSET_DROP, capability)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # The kernel leaves the inheritable ones, which services have in a container under systemd 257.
    _check(_libc.capset((ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()), "capset")
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    left = {name: value for name, value in capabilities().items() if value}
    if left:
        raise RuntimeError(f"capabilities left after dropping to uid {uid}: {left}")


@contextlib.contextmanager
def acting_as(uid):
    """The kernel takes the effective uid for the credentials of a connection, and for those of a message here."""
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def capabilities():
    """The five capability sets of the caller as numbers, CapBnd among them."""
    with open("/proc/self/status", encoding="ascii") as status:
        lines = [line.split() for line in status if line.startswith("Cap")]
    return {name.rstrip(":"): int(value, 16) for name, value in lines}


def disconnect(sock):
    """connect(2) to AF_UNSPEC, for which Python has no address."""
    nobody = bytes(16)
    _check(_libc.connect(sock.fileno(), nobody, len(nobody)), "connect to nobody")


def socket_cookie(sock):
    """SO_COOKIE as sockbroker writes it: 16 hex digits."""
    import socket
    return f"{int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), 'little'):016x}"


def descriptors(pid):
    """{number: what it is, as /proc says}, without those that the process closes meanwhile."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found
