#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""serve.py SERVICE: as serve.c, by libsockbroker through ctypes. Without a library: docs/protocol.md."""
import contextlib
import ctypes
import socket
import sys

library = ctypes.CDLL("libsockbroker.so.0")
library.sockbroker_get_message.restype = ctypes.c_char_p


class Broker:
    """A sockbroker_client."""

    def __init__(self):
        self.client = ctypes.c_void_p()
        self.check(library.sockbroker_new(ctypes.byref(self.client), None))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        library.sockbroker_unref(self.client)

    def check(self, result):
        if result < 0:
            raise OSError(-result, library.sockbroker_get_message(self.client).decode() or "libsockbroker")
        return result

    def register(self, service, *sockets):
        """Each keeps serving for as long as it is open."""
        numbers = (ctypes.c_int * len(sockets))(*(one.fileno() for one in sockets))
        self.check(library.sockbroker_register(self.client, service.encode(), numbers, len(sockets)))


name = sys.argv[1] if len(sys.argv) > 1 else "web"
with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
    with Broker() as broker:
        broker.register(name, listener)
    print("ready", flush=True)
    while True:
        with contextlib.suppress(OSError), listener.accept()[0] as client:  # one that has gone ends nothing
            client.sendall(f"{name} in Python\n".encode())
