# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors whose close takes long, and never so long that a hand is late: `notify` is one queue for all, and does
not wait for the hands that close them. What counts here is how many of them were closed before an honest peer was
served, not for how long he waited: on a busy machine everything takes longer."""

import contextlib
import os
import signal
import socket

import pytest

from harness import kernel, silent_file
from harness.namespace import own_uid, sysctl
from words import add_routes, everywhere, handed_over, section

SLOW = 0.15  # seconds; a hand is late after 0.2
MESSAGES = 40
STANDS_STILL = 3  # seconds; then nobody takes anything from a queue any more


@contextlib.contextmanager
def slow_messages(broker, uid, text, messages=MESSAGES, descriptors=1):
    """Of one user, in the queue of `notify`: so many, or as many as are taken. Yields how many were sent, and a call
    that tells how many descriptors somebody has begun to close."""
    flushes, counted = os.pipe2(os.O_NONBLOCK)
    sent, done = os.pipe()
    sender = os.fork()
    if sender == 0:
        try:
            os.setpgid(0, 0)
            kernel.drop_privileges(uid, uid)
            silent_file.enter_namespaces()
            slow = silent_file.SilentFile(flush_after=SLOW, flushes=counted)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.connect(f"{broker.runtime}/notify")
                notify.settimeout(STANDS_STILL)
                count = 0
                with contextlib.suppress(TimeoutError):
                    while count < messages:
                        socket.send_fds(notify, [text], [slow.fd] * descriptors)
                        count += 1
            os.write(done, str(count).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(done)
    try:
        yield int(os.read(sent, 20)), lambda: len(os.read(flushes, MESSAGES * 2))
    finally:
        os.killpg(sender, signal.SIGKILL)
        os.waitpid(sender, 0)
        for fd in (flushes, counted, sent):
            os.close(fd)


@pytest.mark.parametrize("who,text", [
    ("a stranger", b"X=1"),
    ("a service", b"FDSTORE=1\nFDNAME=evil"),
    ("a service with HoldSec=", b"FDSTORE=1\nFDNAME=held"),
])
def test_notify_does_not_wait_for_descriptors_whose_close_takes_long(broker, spawn, who, text):
    silent_file.make_device()
    sysctl("net/unix/max_dgram_qlen", 512)
    add_routes()
    evil = own_uid(7)
    services = "" if who == "a stranger" else (section("evil", evil, everywhere(81))
                                               + section("held", evil, everywhere(82), "HoldSec=30"))
    broker.policy(section("web", 61001, everywhere()) + services).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    with slow_messages(broker, evil, text) as (_, closed):
        web.notify_and_wait("FDSTORE=1\nFDNAME=web", "tcp-ipv4")
        count = closed()
        print(f"{who}: {count} of {MESSAGES} were closed before the honest message was taken")
        assert count < MESSAGES / 2


def test_who_floods_notify_with_descriptors_that_are_slow_to_close_harms_nobody_but_himself(broker, spawn):
    """Every close of such a file takes long, so what keeps them takes an hour to end. It counts for nobody else, and
    soon the kernel drops what he sends, at his own cost, until that is closed."""
    silent_file.make_device()
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    evil = own_uid(8)
    before = broker.status()[0]["refused"]
    with slow_messages(broker, evil, b"FDSTORE=1\nFDNAME=web", messages=20_000, descriptors=253) as (sent, _):
        broker.wait_log(rf"messages of uid {evil} to notify are dropped")
        answers = [web.control("FDSTORE=1\nFDNAME=web", "tcp-ipv4")["RESULT"] for _ in range(50)]
        assert answers == ["ok"] * 50
        for _ in range(10):
            web.notify_and_wait("FDSTORE=1\nFDNAME=web", "tcp-ipv4")
    dropped = int(broker.wait_log(rf"uid {evil} is heard on notify again; (\d+) of its messages were dropped").group(1))
    refused = broker.status()[0]["refused"] - before
    print(f"of {sent} messages {refused} were refused, {dropped} dropped by the kernel")
    assert dropped > 0 and refused + dropped == sent, "each one is counted"
