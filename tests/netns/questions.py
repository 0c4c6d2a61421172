# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients of a name server, in a process of their own: four at a time, one question after the other, nothing repeated.
What one must be told is what a client of the server would notice: no answer within five seconds, or a refusal.

    questions.py PROTOCOL ADDRESS PORT    until standard input ends; a line asks for the counts so far, as JSON"""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

TIMEOUT = 5
QUESTION = bytes.fromhex("01000001000000000000") + b"\1a\1x\0\0\1\0\1"  # an A record of a.x, after the id
RECORD = bytes([192, 0, 2, 99])


def _fault(answer, number):
    good = answer[:2] == number and RECORD in answer
    return None if good else f"wrong answer {answer!r}"


def _by_udp(family, address, port):
    number = os.urandom(2)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect((address, port))  # so that a refusal and a wrong source are seen
        sock.send(number + QUESTION)
        return _fault(sock.recv(4096), number)


def _by_tcp(_, address, port):
    number = os.urandom(2)
    with socket.create_connection((address, port), TIMEOUT) as sock:
        sock.sendall(struct.pack("!H", len(number + QUESTION)) + number + QUESTION)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + struct.unpack("!H", answer[:2])[0]:
            part = sock.recv(4096)
            if not part:
                return "closed without an answer"
            answer += part
        return _fault(answer[2:], number)


def main(protocol, address, port):
    ended, lock = threading.Event(), threading.Lock()
    counts = {"good": 0, "failed": 0, "refused": 0, "errors": []}
    failures = []  # when each that failed began and ended
    ask = {"udp": _by_udp, "tcp": _by_tcp}[protocol]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def one_after_the_other():
        while not ended.is_set():
            began = time.monotonic()
            try:
                fault = ask(family, address, int(port))
            except OSError as error:
                fault = str(error)
            with lock:
                counts["failed" if fault else "good"] += 1
                counts["refused"] += "refused" in (fault or "")
                if fault:
                    counts["errors"].append(fault)
                    failures.append((began, time.monotonic()))
                elif counts["good"] == 1:
                    print("through", flush=True)

    threads = [threading.Thread(target=one_after_the_other) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        with lock:
            print(json.dumps({**counts, "errors": counts["errors"][:3]}), flush=True)
    ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps({**counts, "errors": counts["errors"][:3], "failures": failures[:1000]}), flush=True)


def start(protocol, address, port):
    """Such a process, for harness.hammer.Hammer."""
    return subprocess.Popen([sys.executable, __file__, protocol, address, str(port)], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


if __name__ == "__main__":
    main(*sys.argv[1:])
