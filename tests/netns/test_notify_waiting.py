# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a stranger sends to `notify` while its host does not answer for a name: little of it is kept, and nothing that
others have sent goes for it."""

import itertools
import os
import pathlib
import resource
import signal
import socket
import time

import pytest

from harness import kernel
from harness.directory import Directory, let_answers_grow_old
from harness.namespace import own_uid
from harness.until import until
from words import add_routes, everywhere, handed_over, open_socket, section

UID, OTHER = 61001, 61002
BY_NAME = "[Service web]\nUser=web\n" + everywhere()
REQUEST = "FDSTORE=1\nFDNAME=web"


@pytest.fixture(name="directory")
def _directory(broker):
    """Asked for the one name of the policy; it does not answer for it any more."""
    add_routes()
    directory = Directory(broker)
    directory.add("web", UID)
    return directory


def start(broker, *lines):
    if lines:
        (broker.config / "sockbrokerd.conf").write_text("[Broker]\n" + "".join(f"{line}\n" for line in lines))
    broker.policy(BY_NAME + section("number", OTHER, everywhere(81))).start()
    broker.wait_log("directory asked: user web")
    let_answers_grow_old()


def stranger(broker, text, descriptors, messages):
    """A process of its own that sends so many of them."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
            kernel.drop_privileges(own_uid(7), own_uid(7))
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(descriptors)]
            for sock in sockets:
                sock.bind(("127.0.0.1", 0))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.connect(str(broker.notify_path))
                for _ in messages:
                    socket.send_fds(notify, [text.encode()], [sock.fileno() for sock in sockets])
            status = 0
        finally:
            os._exit(status)
    return child


def send_all(broker, text, descriptors, count):
    assert os.waitpid(stranger(broker, text, descriptors, range(count)), 0)[1] == 0


def state(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def refusals(broker, code):
    return broker.status()[0]["refusals"].get(code, 0)


# text, descriptors, messages; how many of them may be kept
FLOODS = {
    "long texts": (REQUEST + "\nX=" + "a" * 4000, 1, 400, 120),
    "as many descriptors as go into a message": (REQUEST, 253, 30, 6),
    "short messages": (REQUEST, 1, 1500, 520),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_of_a_strangers_messages_with_descriptors_few_wait(broker, directory, flood):
    text, descriptors, count, kept = FLOODS[flood]
    start(broker)
    directory.says("hang")
    send_all(broker, text, descriptors, count)
    until("the rest to be refused", lambda: refusals(broker, "rate-limited") >= count - kept)
    broker.wait_log("too many messages of uid")


def test_messages_beyond_the_rate_of_their_sender_do_not_wait(broker, directory):
    start(broker, "RateLimitIntervalSec=1min", "NotifyRateLimitBurst=20")
    directory.says("hang")
    send_all(broker, REQUEST, 1, 120)
    until("the rest to be refused", lambda: refusals(broker, "rate-limited") == 100)
    assert refusals(broker, "not-permitted") == 0, "those within the rate wait still"


def test_what_has_waited_is_handled_once_the_host_answers_and_others_go_on_meanwhile(broker, directory, spawn):
    start(broker)
    directory.says("hang")
    send_all(broker, REQUEST, 1, 400)
    other = spawn("other", OTHER)
    handed_over(other, "tcp", "ipv4", service="number")
    other.notify_and_wait("FDSTORE=1\nFDNAME=number", "tcp-ipv4")
    assert refusals(broker, "not-permitted") == 0
    directory.says("ok")
    until("all to be judged", lambda: refusals(broker, "not-permitted") == 400)


def test_sockets_of_strangers_that_wait_take_the_place_of_none_that_waits_longer(broker, directory, spawn):
    """16,384 sockets may wait; more than that come and go while one of an honest service does."""
    directory.add("early", 61003)
    broker.policy("[Service early]\nUser=early\n" + everywhere(82), "60-early.conf")
    start(broker)
    directory.says("hang web")
    web = spawn("web", UID)
    open_socket(web, "tcp", "ipv4")
    web.notify(REQUEST, "tcp-ipv4")
    flood = stranger(broker, "FDSTORE=1\nFDNAME=early", 253, itertools.repeat(None))
    try:
        until("sockets to come and go", lambda: refusals(broker, "not-permitted") >= 80, 60)
    finally:
        os.kill(flood, signal.SIGKILL)
        os.waitpid(flood, 0)
    directory.says("ok")
    cookie = web.facts("tcp-ipv4")[1]
    until("the service to be registered", lambda: [one["cookie"] for one in broker.list()] == [cookie])


def test_a_message_that_nobody_can_take_counts_once_for_the_rate_of_its_sender(broker, spawn):
    """Whoever takes descriptors is forked by a process that stands still here."""
    add_routes()
    (broker.config / "sockbrokerd.conf").write_text("[Broker]\nRateLimitIntervalSec=1min\nNotifyRateLimitBurst=2\n")
    broker.policy(section("number", OTHER, everywhere(81))).start()
    other = spawn("other", OTHER)
    open_socket(other, "tcp", "ipv4")
    zygote = broker.helper("sb-zygote")
    os.kill(zygote, signal.SIGSTOP)
    try:
        hands = broker.helpers("sb-intake") + broker.helpers("sb-disposal")
        for pid in hands:
            os.kill(pid, signal.SIGKILL)
        # One that still lives when it is told to take the message counts as one that may have taken it.
        until("them to be dead", lambda: all(state(pid) == "Z" for pid in hands))
        other.notify("FDSTORE=1\nFDNAME=number", "tcp-ipv4")
        time.sleep(3.5)  # it is looked at again each second (Crew::kMaxWaitUsec), and nothing tells when
        assert broker.list() == []
    finally:
        os.kill(zygote, signal.SIGCONT)
    until("it to be registered", lambda: len(broker.list()) == 1)
    for _ in range(5):
        other.notify("FDSTORE=1\nFDNAME=number", "tcp-ipv4")
    spawn("last", 61003).notify_and_wait("READY=1")  # behind them in the queue
    assert refusals(broker, "rate-limited") == 4, "all but one: two have been taken"
