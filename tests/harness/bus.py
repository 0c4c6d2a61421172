# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections to a bus of the test's own, by sd-bus(3), and a manager of units there in place of PID 1."""

import collections
import ctypes
import os
import queue
import threading

_lib = ctypes.CDLL("libsystemd.so.0")
_HANDLER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_lib.sd_bus_message_get_member.restype = ctypes.c_char_p
_UNITS = b"/org/freedesktop/systemd1/unit/"
MANAGER = b"org.freedesktop.systemd1"
# A signal that says nothing but who sends it: (path, interface, member, types, values).
Signal = collections.namedtuple("Signal", "path interface member types values")
NEW_MANAGER = Signal(b"/org/freedesktop/DBus", b"org.freedesktop.DBus", b"NameOwnerChanged", b"sss",
                     (MANAGER, b":1.1", b":1.2"))


def changed(unit):
    """That something about the unit has changed."""
    path = _UNITS + b"".join(bytes([c]) if chr(c).isalnum() else b"_%02x" % c for c in unit.encode())
    return Signal(path, b"org.freedesktop.DBus.Properties", b"PropertiesChanged", b"sa{sv}as",
                  (MANAGER + b".Unit", 0, 0))


def _do(call, *arguments):
    result = getattr(_lib, call)(*arguments)
    if result < 0:
        raise OSError(-result, f"{call}: {os.strerror(-result)}")
    return result


class Bus:
    """A connection."""

    def __init__(self):
        self._bus = ctypes.c_void_p()
        _do("sd_bus_open_system", ctypes.byref(self._bus))

    def others(self):
        """Unique names of all other connections."""
        own, names = ctypes.c_char_p(), ctypes.POINTER(ctypes.c_char_p)()
        _do("sd_bus_get_unique_name", self._bus, ctypes.byref(own))
        _do("sd_bus_list_names", self._bus, ctypes.byref(names), None)
        found = []
        while names[len(found)] is not None:
            found.append(names[len(found)])
        return [name for name in found if name.startswith(b":") and name != own.value]

    def send_descriptor(self, to, fd):
        self._send(to, Signal(b"/x", b"x.y", b"Z", b"h", (fd,)))

    def send(self, to, signal):
        """The bus has it when this returns. to: None is whoever listens."""
        self._send(to, signal)
        self.others()

    def _send(self, to, signal):
        message = ctypes.c_void_p()
        _do("sd_bus_message_new_signal", self._bus, ctypes.byref(message), signal.path, signal.interface, signal.member)
        _do("sd_bus_message_append", message, signal.types, *signal.values)
        _do("sd_bus_send_to", self._bus, message, to, None)
        _lib.sd_bus_message_unref(message)
        _do("sd_bus_flush", self._bus)


class Manager(threading.Thread):
    """Says of every unit that it is active. `calls` counts what it was asked."""

    def __init__(self):
        super().__init__(daemon=True)
        self.calls = collections.Counter()
        self._bus = ctypes.c_void_p()
        self._to_do = queue.SimpleQueue()
        self._ends = False
        _do("sd_bus_open_system", ctypes.byref(self._bus))
        self._handler = _HANDLER(self._answer)
        _do("sd_bus_add_filter", self._bus, None, self._handler, None)
        _do("sd_bus_request_name", self._bus, MANAGER, ctypes.c_uint64(0))
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ends = True
        self.join()
        _lib.sd_bus_flush_close_unref(self._bus)

    def run(self):
        while not self._ends:
            while not self._to_do.empty():
                self._to_do.get()()
            if _do("sd_bus_process", self._bus, None) == 0:
                _do("sd_bus_wait", self._bus, ctypes.c_uint64(20_000))

    def tell(self, signal):
        """To whoever listens, soon."""
        self._to_do.put(lambda: self._emit(signal))

    def begin_anew(self):
        """As a new PID 1 does, soon."""
        self._to_do.put(self._take_the_name_again)

    def _take_the_name_again(self):
        _do("sd_bus_release_name", self._bus, MANAGER)
        _do("sd_bus_request_name", self._bus, MANAGER, ctypes.c_uint64(0))

    def _emit(self, signal):
        _do("sd_bus_emit_signal", self._bus, signal.path, signal.interface, signal.member, signal.types, *signal.values)

    def _answer(self, call, *_):
        if not _lib.sd_bus_message_is_method_call(ctypes.c_void_p(call), None, None):
            return 0
        member = _lib.sd_bus_message_get_member(ctypes.c_void_p(call)).decode()
        self.calls[member] += 1
        reply = ctypes.c_void_p()
        _do("sd_bus_message_new_method_return", ctypes.c_void_p(call), ctypes.byref(reply))
        if member == "Get":
            _do("sd_bus_message_append", reply, b"v", b"s", b"252")
        elif member == "GetAll":
            _do("sd_bus_message_append", reply, b"a{sv}", 1, b"ActiveState", b"s", b"active")
        _do("sd_bus_send", None, reply, None)
        _lib.sd_bus_message_unref(reply)
        return 1
