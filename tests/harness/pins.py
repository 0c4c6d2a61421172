# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pinned maps as the kernel has them, read and written past the broker (bpf/layout.h has their layout)."""

import contextlib
import ctypes
import os
import platform
import struct

_NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_CREATE, _LOOKUP, _UPDATE, _PIN, _GET, _INFO, _DETACH = 0, 1, 2, 6, 7, 15, 34
_PER_CPU = 5, 6, 10  # PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH of linux/bpf.h
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command, attribute):
    buffer = ctypes.create_string_buffer(attribute, 128)
    result = _libc.syscall(ctypes.c_long(_NUMBER), ctypes.c_long(command), buffer, ctypes.c_long(128))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


def _possible_processors():
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as ranges:
        return 1 + int(ranges.read().strip().rpartition("-")[2].rpartition(",")[2])


class PinnedMap:
    """One map, by its descriptor. Values of a per-CPU map are those of all processors, one after the other."""

    def __init__(self, fd):
        self.fd = fd
        info = ctypes.create_string_buffer(256)
        _bpf(_INFO, struct.pack("=IIQ", self.fd, 256, ctypes.addressof(info)))
        kind, _, _, self.value_size, self.size = struct.unpack_from("=IIIII", info)
        self._room = (self.value_size + 7) // 8 * 8
        if kind in _PER_CPU:  # the kernel copies the values of all processors, each in a multiple of eight bytes
            self.value_size = self._room = self._room * _possible_processors()

    def close(self):
        os.close(self.fd)

    def pin(self, path):
        name = ctypes.create_string_buffer(str(path).encode())
        _bpf(_PIN, struct.pack("=QII", ctypes.addressof(name), self.fd, 0))

    def read(self, key):
        """None where a sockmap holds nothing."""
        index, value = ctypes.c_uint32(key), ctypes.create_string_buffer(self._room)
        try:
            _bpf(_LOOKUP, struct.pack("=IIQQQ", self.fd, 0, ctypes.addressof(index), ctypes.addressof(value), 0))
        except FileNotFoundError:
            return None
        return value.raw[:self.value_size]

    def write(self, key, value):
        index, data = ctypes.c_uint32(key), ctypes.create_string_buffer(value, self._room)
        _bpf(_UPDATE, struct.pack("=IIQQQ", self.fd, 0, ctypes.addressof(index), ctypes.addressof(data), 0))


@contextlib.contextmanager
def pinned(folder, name):
    """A PinnedMap for a with statement."""
    path = ctypes.create_string_buffer(str(folder / name).encode())
    one = PinnedMap(_bpf(_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0)))
    try:
        yield one
    finally:
        one.close()


def written(folder, name):
    """How many values of an array are not empty."""
    with pinned(folder, name) as one:
        return sum(any(one.read(key)) for key in range(one.size))


@contextlib.contextmanager
def _link(folder):
    path = ctypes.create_string_buffer(str(folder / "link").encode())
    fd = _bpf(_GET, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    try:
        yield fd
    finally:
        os.close(fd)


def _info_of_link(folder):
    """Its id, its program's, the inode of its network namespace. (Of bpftool 7.5, Debian 13, it is no use to ask a
    pinned link.)"""
    with _link(folder) as fd:
        info = ctypes.create_string_buffer(256)
        _bpf(_INFO, struct.pack("=IIQ", fd, 256, ctypes.addressof(info)))
        _, number, program, _, netns = struct.unpack_from("=IIIII", info)
        return number, program, netns


def program_of_link(folder):
    """The id of the program that is attached."""
    return _info_of_link(folder)[1]


def netns_of_link(folder):
    """The inode of the network namespace that it is attached to, 0: none."""
    return _info_of_link(folder)[2]


def detach_link(folder):
    """As bpftool link detach: the pin stays."""
    with _link(folder) as fd:
        _bpf(_DETACH, struct.pack("=I", fd))


@contextlib.contextmanager
def created(kind, value_size, size):
    """A map of its own, with keys of four bytes, for a with statement."""
    one = PinnedMap(_bpf(_CREATE, struct.pack("=IIIII", kind, 4, value_size, size, 0)))
    try:
        yield one
    finally:
        one.close()


def sockets(folder):
    """{slot: cookie} of all sockets that the kernel holds."""
    with pinned(folder, "sockets") as found:
        values = {slot: found.read(slot) for slot in range(found.size)}
    return {slot: f"{int.from_bytes(value, 'little'):016x}" for slot, value in values.items() if value is not None}


def records(folder):
    """{slot: (service, cookie, uid)} as the broker has noted who owns them."""
    with pinned(folder, "names") as found:
        names = [found.read(number).split(b"\0")[0].decode() for number in range(found.size)]
    noted = {}
    with pinned(folder, "registrants") as found:
        for slot in range(found.size):
            cookie, _, service, _, uid = struct.unpack_from("=QqIII", found.read(slot))
            if service:
                noted[slot] = names[service], f"{cookie:016x}", uid
    return noted
