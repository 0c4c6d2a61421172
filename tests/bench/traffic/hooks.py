# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program in sendmsg4 and sendmsg6 of a cgroup that does nothing, to see what the kernel takes for one."""

import contextlib
import ctypes
import os
import platform
import struct

_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]  # the system call's number
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9  # include/uapi/linux/bpf.h, as the numbers below
_CGROUP_SOCK_ADDR = 18
_SENDMSG = (14, 15)  # BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG
_RETURN_1 = struct.pack("<BBhiBBhi", 0xb7, 0, 0, 1, 0x95, 0, 0, 0)

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(_BPF, command, buffer, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return result


def _load(attach_type):
    code, terms = ctypes.create_string_buffer(_RETURN_1), ctypes.create_string_buffer(b"GPL")
    return _bpf(_PROG_LOAD, struct.pack("=IIQQIIQII16sII", _CGROUP_SOCK_ADDR, 2, ctypes.addressof(code),
                                        ctypes.addressof(terms), 0, 0, 0, 0, 0, b"nothing", 0, attach_type))


@contextlib.contextmanager
def empty(cgroup):
    """Attached to the cgroup, a directory of cgroup2, while the with statement lasts."""
    target = os.open(cgroup, os.O_RDONLY)
    attached = []
    try:
        for attach_type in _SENDMSG:
            program = _load(attach_type)
            try:
                _bpf(_PROG_ATTACH, struct.pack("=IIII", target, program, attach_type, 0))
            finally:
                os.close(program)
            attached.append(attach_type)
        yield
    finally:
        for attach_type in attached:
            _bpf(_PROG_DETACH, struct.pack("=IIII", target, 0, attach_type, 0))
        os.close(target)
