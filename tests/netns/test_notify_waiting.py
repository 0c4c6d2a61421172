# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a stranger sends to `notify` while its host does not answer for a name: little of it is kept."""

import os
import resource
import socket
import time

import pytest

from harness import kernel
from harness.directory import Directory
from harness.namespace import own_uid
from harness.until import until
from words import add_routes, everywhere, handed_over, section

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


def start(broker, directory, *lines):
    if lines:
        (broker.config / "sockbrokerd.conf").write_text("[Broker]\n" + "".join(f"{line}\n" for line in lines))
    broker.policy(BY_NAME + section("number", OTHER, everywhere(81))).start()
    broker.wait_log("directory asked: user web")
    time.sleep(1.1)  # an answer is good for a second
    directory.says("hang")


def send_all(broker, text, descriptors, count):
    """As a stranger, from a process of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
            kernel.drop_privileges(own_uid(7), own_uid(7))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, \
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                sock.bind(("127.0.0.1", 0))
                notify.connect(str(broker.notify_path))
                for _ in range(count):
                    socket.send_fds(notify, [text.encode()], [sock.fileno()] * descriptors)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


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
    start(broker, directory)
    send_all(broker, text, descriptors, count)
    until("the rest to be refused", lambda: refusals(broker, "rate-limited") >= count - kept)
    assert "too many messages of uid" in broker.log()


def test_messages_beyond_the_rate_of_their_sender_do_not_wait(broker, directory):
    start(broker, directory, "RateLimitIntervalSec=1min", "NotifyRateLimitBurst=20")
    send_all(broker, REQUEST, 1, 120)
    until("the rest to be refused", lambda: refusals(broker, "rate-limited") == 100)
    assert refusals(broker, "not-permitted") == 0, "those within the rate wait still"


def test_what_has_waited_is_handled_once_the_host_answers_and_others_go_on_meanwhile(broker, directory, spawn):
    start(broker, directory)
    send_all(broker, REQUEST, 1, 400)
    other = spawn("other", OTHER)
    handed_over(other, "tcp", "ipv4", service="number")
    other.notify_and_wait("FDSTORE=1\nFDNAME=number", "tcp-ipv4")
    assert refusals(broker, "not-permitted") == 0
    directory.says("ok")
    until("all to be judged", lambda: refusals(broker, "not-permitted") == 400)
