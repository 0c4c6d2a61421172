# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients of a server that miss nothing: four at a time, one exchange after the other, nothing repeated. What counts as
failed is what a client of the server would notice: a refusal, no answer within five seconds, a wrong one. Needs nothing
but the standard library, for it runs inside the machine too."""

import json
import os
import socket
import struct
import sys
import threading
import time

TIMEOUT = 5
QUESTION = bytes.fromhex("01000001000000000000") + b"\1a\1x\0\0\1\0\1"  # an A record of a.x, after the id
RECORD = bytes([192, 0, 2, 99])


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


# One exchange each: what was wrong with the answer, if anything. OSError: there was none.


def echoed(address: str, port: int) -> str | None:
    with socket.create_connection((address, port), timeout=TIMEOUT) as client:
        client.sendall(b"ping")
        return None if client.recv(16) == b"ping" else "no echo"


def fetched(address: str, port: int) -> str | None:
    """The whole of an answer, up to its orderly end."""
    answer = b""
    with socket.create_connection((address, port), timeout=TIMEOUT) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while part := client.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return None if head.startswith(b"HTTP/1.1 200 ") and body else f"not answered: {answer!r}"


def told(answer: bytes, number: bytes) -> str | None:
    return None if answer[:2] == number and RECORD in answer else f"wrong answer {answer!r}"


def told_by_udp(address: str, port: int) -> str | None:
    number = os.urandom(2)
    with socket.socket(family(address), socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect((address, port))  # so that a refusal and a wrong source are seen
        client.send(number + QUESTION)
        return told(client.recv(4096), number)


def told_by_tcp(address: str, port: int) -> str | None:
    number = os.urandom(2)
    with socket.create_connection((address, port), TIMEOUT) as client:
        client.sendall(struct.pack("!H", len(number + QUESTION)) + number + QUESTION)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + struct.unpack("!H", answer[:2])[0]:
            part = client.recv(4096)
            if not part:
                return "closed without an answer"
            answer += part
        return told(answer[2:], number)


EXCHANGES = {"echo": echoed, "http": fetched, "dns-udp": told_by_udp, "dns-tcp": told_by_tcp}


def run(protocol: str, address: str, port: int) -> None:
    """Until standard input ends. Says when the first is through; a line asks for the counts so far, as JSON."""
    exchange = EXCHANGES[protocol]
    ended, lock = threading.Event(), threading.Lock()
    counts = {"good": 0, "failed": 0, "refused": 0, "errors": []}
    failures = []  # when each that failed began and ended

    def one_after_the_other() -> None:
        while not ended.is_set():
            began = time.monotonic()
            try:
                fault = exchange(address, port)
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
    for _ in sys.stdin:  # tests wait for what is answered after an event
        with lock:
            print(json.dumps({**counts, "errors": counts["errors"][:3]}), flush=True)
    ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps({**counts, "errors": counts["errors"][:3], "failures": failures[:1000]}), flush=True)
