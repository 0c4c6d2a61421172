# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of User= and Group= by a directory that answers, has no answer, is slow, hangs or crashes: nobody waits for it
who did not ask for it, and no live socket goes for it."""

import contextlib
import os
import pathlib
import select
import signal
import socket
import time

import pytest

from harness import kernel, long, wire
from harness.directory import let_answers_grow_old
from harness.until import until
from words import PORT, add_routes, everywhere, handed_over, open_socket, section, who

UID, OTHER, STRANGER = 61001, 61002, 61009
NO_ANSWER = pytest.mark.parametrize("mode", long.some(["tryagain", "unavail", "hang"], "unavail", "hang"))


def by_name(name, user, *lines):
    return f"[Service {name}]\nUser={user}\n" + "".join(line.rstrip("\n") + "\n" for line in lines or (everywhere(),))


def warnings(broker):
    return broker.status()[0]["warnings"]


def asked(broker, name):
    return broker.log().count(f"directory asked: user {name}\n")


def helpers(broker):
    """(the process that answers, the one that puts another in its place), once both are there and have their names"""
    def children(pid):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended
                yield from map(int, (task / "children").read_text().split())

    def is_names(pid):
        with contextlib.suppress(OSError):  # a process of others, that has ended
            return pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "names"
        return False
    found = []

    def both():
        found[:] = [(child, keeper) for keeper in children(broker.process.pid) if is_names(keeper)
                    for child in children(keeper)]
        return len(found) == 1
    until("both processes", both)
    return found[0]


@pytest.fixture(name="web")
def _web(broker, directory, spawn):
    """A service that was admitted by its name and serves."""
    add_routes()
    directory.add("web", UID)
    broker.policy(by_name("web", "web")).start()
    web = spawn("web", UID)
    handed_over(web, "tcp", "ipv4")
    return web


# No answer.

@NO_ANSWER
def test_a_directory_that_does_not_answer_takes_no_socket_away_at_a_reload(broker, directory, web, mode):
    directory.says(mode)
    began = time.monotonic()
    status, output = broker.reload()
    assert status == 0 and time.monotonic() - began < 20, output  # a name is waited for 5 s at most
    assert "50-test.conf:2" in output and "web has no answer from this host's directory" in output
    assert who("tcp", "ipv4") == "web"
    warning, = warnings(broker)
    assert "does not answer for User=web since 20" in warning and "what it said last counts" in warning
    assert warning in broker.ctl("status")[1]
    open_socket(web, "tcp", "ipv4", "again")
    assert web.register("again").result == "ok", "what was known last counts"
    directory.says("ok")
    assert broker.reload()[0] == 0
    assert warnings(broker) == [] and who("tcp", "ipv4") == "web"


@NO_ANSWER
def test_a_directory_that_does_not_answer_takes_no_socket_away_at_a_restart(broker, directory, web, mode):
    directory.says(mode)
    broker.kill()
    began = time.monotonic()
    broker.start()
    assert time.monotonic() - began < 3.9, "READY=1 does not wait for names, which it would for 4 s"
    assert who("tcp", "ipv4") == "web"
    broker.wait_log(r"50-test.conf:2: .*web has no answer")
    until("status to say so", lambda: warnings(broker))
    assert who("tcp", "ipv4") == "web"
    open_socket(web, "tcp", "ipv4", "again")
    reply = web.register("again")
    assert reply.result == "not-permitted" and "does not answer for web just now, try again" in reply.message, reply
    directory.says("ok")
    until("the directory to be asked again", lambda: warnings(broker) == [])
    assert web.register("again").result == "ok"


def test_a_name_that_nobody_ever_knew_is_refused_with_a_word_about_the_directory(broker, directory, spawn):
    directory.says("unavail")
    broker.policy(by_name("web", "web")).start()
    web = spawn("web", UID)
    web.open("l", "tcp", "127.0.0.1")
    for text in ("FDSTORE=1\nFDNAME=web", "FDSTORE=1"):
        assert web.register("l", text=text).result == "not-permitted"
    assert "the host's directory does not answer for web just now, try again" in web.register("l").message
    directory.add("web", UID)
    directory.says("ok")
    assert web.register("l").result == "ok"


# The name that admitted.

def test_the_name_that_admitted_counts_for_as_long_as_policy_has_it(broker, directory, web):
    directory.remove("web")
    broker.policy(section("other", OTHER, everywhere(81)), "60-unrelated.conf")
    assert broker.reload()[0] == 0
    assert who("tcp", "ipv4") == "web"
    broker.kill()
    broker.start()
    broker.wait_log(r"web does not exist on this host, so it matches nobody")
    assert who("tcp", "ipv4") == "web"
    open_socket(web, "tcp", "ipv4", "again")
    assert web.register("again").result == "not-permitted", "it admits nobody any more"
    broker.policy(by_name("web", "another"))
    assert broker.reload()[0] == 0
    assert broker.list() == []


def test_the_group_that_admitted_counts_too(broker, directory, spawn):
    directory.add("www", UID, "group")
    broker.policy("[Service web]\nGroup=www\n" + everywhere()).start()
    web = spawn("web", UID, gid=UID)
    handed_over(web, "tcp", "ipv4")
    directory.remove("www", "group")
    assert broker.reload()[0] == 0
    assert len(broker.list()) == 1
    broker.policy("[Service web]\nGroup=another\n" + everywhere())
    assert broker.reload()[0] == 0
    assert broker.list() == []


def test_a_number_that_another_has_now_admits_nobody_by_an_old_answer(broker, directory, web, spawn):
    directory.remove("web")
    directory.add("web", OTHER)
    let_answers_grow_old()
    open_socket(web, "tcp", "ipv4", "again")
    assert web.register("again").result == "not-permitted"
    other = spawn("other", OTHER)
    open_socket(other, "tcp", "ipv4")
    assert other.register("tcp-ipv4", service="web").result == "ok"


@pytest.mark.parametrize("text", ["FDSTORE=1\nFDNAME=web", "FDSTORE=1"], ids=["named", "unnamed"])
def test_who_came_into_being_just_now_is_admitted_at_once(broker, directory, spawn, text):
    broker.policy(by_name("web", "web") + by_name("more", "more", everywhere(81))).start()
    stranger, web = spawn("stranger", STRANGER), spawn("web", UID)
    for one in (stranger, web):
        one.open("l", "tcp", "127.0.0.1")
    for _ in range(3):
        assert stranger.register("l", text=text).result == "not-permitted"
        directory.add("web", UID)
        assert web.register("l", text=text).result == "ok"
        directory.remove("web")
        broker.policy(by_name("web", "nobody-yet") + by_name("more", "more", everywhere(81)))
        assert broker.reload()[0] == 0
        broker.policy(by_name("web", "web") + by_name("more", "more", everywhere(81)))
        assert broker.reload()[0] == 0


# Nobody waits.

def slowest_answer(broker, until_done):
    worst = 0.0
    with wire.Control(broker.control_path) as control:
        while not until_done():
            began = time.monotonic()
            assert control.request("VERB=version").result == "ok"
            worst = max(worst, time.monotonic() - began)
            time.sleep(0.002)
    return worst


def test_nobody_waits_for_a_slow_name_but_who_asked_for_it(broker, directory, web, spawn):
    broker.policy(section("number", OTHER, everywhere(81)), "60-number.conf")
    assert broker.reload()[0] == 0
    let_answers_grow_old()
    directory.says("slow 2500")
    other = spawn("other", OTHER)
    open_socket(other, "tcp", "ipv4")
    with wire.Control(broker.control_path) as waits, socket.create_server(("127.0.0.1", 0)) as listener:
        waits.send("FDSTORE=1\nFDNAME=web", [listener.fileno()])
        worst = slowest_answer(broker, lambda: other.register("tcp-ipv4", service="number").result == "ok" and
                               select.select([waits.sock], [], [], 0)[0])
        assert waits.receive().result == "not-permitted"
    assert worst < 2
    with wire.Control(broker.control_path) as reload:
        reload.send("VERB=reload")
        worst = slowest_answer(broker, lambda: select.select([reload.sock], [], [], 0)[0])
        assert reload.receive().result == "ok"
    assert worst < 2
    assert web.register("tcp-ipv4").result == "ok", "the one that asks for it waits, and has its answer"


def test_each_name_is_asked_once_a_reload_however_many_sockets_have_it(broker, directory, spawn):
    directory.add("web", UID)
    policy = "".join(f"[Service s{i}]\nUser=nosuch web\nHandover=share\nListenStream=10.{i}.0.0/16:80\n"
                     for i in range(4))
    broker.policy(policy).start()
    broker.wait_log("nosuch does not exist")
    web = spawn("web", UID)
    for i in range(20):
        web.open(f"l{i}", "tcp", "127.0.0.1")
    for i in range(4):
        assert web.register(*(f"l{k}" for k in range(20)), service=f"s{i}").result == "ok"
    before = asked(broker, "web"), asked(broker, "nosuch")
    assert broker.reload()[0] == 0
    assert (asked(broker, "web"), asked(broker, "nosuch")) == (before[0] + 1, before[1] + 1)
    assert len(broker.list()) == 80


def test_a_directory_that_hangs_does_not_delay_accounts_of_this_machine(broker, directory, spawn):
    """More names than there are threads."""
    directory.says("hang")
    directory.add("localweb", UID)
    broker.policy("".join(by_name(f"s{i}", f"far{i}", everywhere(100 + i)) for i in range(40)) +
                  by_name("web", "localweb")).start()
    web = spawn("web", UID)
    web.open("l", "tcp", "127.0.0.1")
    end = time.monotonic() + 30
    while "another one has taken its place" not in broker.log():  # those that hang are left behind
        assert time.monotonic() < end
        for _ in range(2):
            began = time.monotonic()
            assert web.register("l").result == "ok"
            assert time.monotonic() - began < 3.9, "names that hang have no answer after 4 s"
            time.sleep(0.3)
    directory.says("ok")
    until("all to be asked again", lambda: warnings(broker) == [], 30)


def test_what_waits_for_a_name_keeps_no_descriptor_in_the_broker(broker, directory, web, spawn):
    broker.policy(section("number", OTHER, everywhere(81)), "60-number.conf")
    assert broker.reload()[0] == 0
    let_answers_grow_old()
    directory.says("slow 2500")
    fds = pathlib.Path(f"/proc/{broker.process.pid}/fd")
    before = len(list(fds.iterdir()))
    results = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        waiting = [wire.Control(broker.control_path) for _ in range(24)]
        try:
            for control in waiting:
                control.send("FDSTORE=1\nFDNAME=web", [listener.fileno()] * 200)
            other = spawn("other", OTHER)
            open_socket(other, "tcp", "ipv4")
            assert other.register("tcp-ipv4", service="number").result == "ok"
            # Two for each connection (its process is pinned), and what a registration needs for a moment.
            assert len(list(fds.iterdir())) < before + 2 * 24 + 16
            results = [control.receive().result for control in waiting]
        finally:
            for control in waiting:
                control.sock.close()
    assert set(results) == {"not-permitted"}, results
    assert asked(broker, "web") <= 8, "whoever asks for a name that is on its way joins it"
    until("descriptors to be closed", lambda: len(list(fds.iterdir())) <= before + 2)


def test_a_barrier_waits_for_no_name_and_other_users_go_on(broker, directory, web, spawn):
    broker.policy(section("number", OTHER, everywhere(81)), "60-number.conf")
    assert broker.reload()[0] == 0
    let_answers_grow_old()
    directory.says("slow 3000")
    other = spawn("other", OTHER)
    open_socket(other, "tcp", "ipv4")
    open_socket(web, "udp", "ipv4")
    web.notify("FDSTORE=1\nFDNAME=web", "udp-ipv4")
    began = time.monotonic()
    other.notify_and_wait("FDSTORE=1\nFDNAME=number", "tcp-ipv4")
    web.notify_and_wait("READY=1")
    assert time.monotonic() - began < 2.5

    def serves():
        with contextlib.suppress(ConnectionRefusedError):
            return who("udp", "ipv4", PORT) == "web"
    until("the message that waits", serves)


def test_ready_does_not_wait_and_warnings_come_after_it(broker, directory):
    directory.says("slow 3900")  # it is waited for 4 s at most
    began = time.monotonic()
    broker.policy(by_name("web", "nosuch")).start()
    assert time.monotonic() - began < 3.8
    assert "nosuch" not in broker.log().replace("directory asked: user nosuch", "")
    broker.wait_log("50-test.conf:2: User=: nosuch does not exist on this host, so it matches nobody")


# The process.

def test_a_process_that_ends_is_replaced_and_its_questions_are_asked_again(broker, directory, web, spawn):
    answers, _ = helpers(broker)
    os.kill(answers, signal.SIGKILL)
    broker.wait_log("another one has taken its place")
    let_answers_grow_old()
    assert web.register("tcp-ipv4").result == "ok"
    # A library that crashes at one name costs no other.
    directory.says("crash")
    broker.policy(by_name("crash", "crashes", everywhere(81)), "60-crash.conf")
    status, output = broker.reload()
    assert status == 0 and "crashes has no answer" in output
    let_answers_grow_old()
    assert web.register("tcp-ipv4").result == "ok"
    assert who("tcp", "ipv4") == "web"


def test_without_the_process_what_was_known_counts(broker, directory, web):  # pylint: disable=unused-argument
    answers, keeper = helpers(broker)
    os.kill(keeper, signal.SIGKILL)
    broker.wait_log("the process that looks up accounts .NSS. is gone")
    until("the other to end with it", lambda: not pathlib.Path(f"/proc/{answers}").exists())
    assert broker.reload()[0] == 0
    assert who("tcp", "ipv4") == "web"
    assert web.register("tcp-ipv4").result == "ok"
    assert len(warnings(broker)) == 1, "it is not the host that does not answer"
    assert "process that looks up accounts (NSS) is gone" in warnings(broker)[0]
    assert "systemctl restart sockbrokerd" in warnings(broker)[0]


def test_the_processes_end_with_the_broker(broker, directory):
    broker.policy(by_name("web", "web")).start()
    directory.says("hang")
    both = helpers(broker)
    broker.kill()
    until("both to end", lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in both))


def kinds_of_descriptors(pid):
    """Of a process, but for /dev/null and pipes."""
    kinds = [link.partition(":")[0] for link in kernel.descriptors(pid).values()]
    return [kind for kind in kinds if kind not in ("/dev/null", "pipe")]


def test_the_processes_have_nothing_of_the_brokers(broker, directory):  # pylint: disable=unused-argument
    broker.policy(by_name("web", "web")).start()
    for pid in helpers(broker):
        until("a filter", lambda pid=pid: "Seccomp:\t2" in pathlib.Path(f"/proc/{pid}/status").read_text())
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        assert "CapPrm:\t0000000000000000" in status and "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        # A lookup opens files, and closes them again.
        until("nothing but its socket", lambda pid=pid: kinds_of_descriptors(pid) == ["socket"])


def test_a_library_that_comes_later_is_used(broker, directory, spawn):
    """nsswitch.conf is read again by libc; the core has a filter that forbids new libraries, the process has not."""
    conf = pathlib.Path("/etc/nsswitch.conf")
    conf.write_text("passwd: files\ngroup: files\n")
    directory.add("web", UID)
    broker.policy(by_name("web", "web")).start()
    broker.wait_log("web does not exist")
    conf.write_text("passwd: files testdir\ngroup: files\n")
    web = spawn("web", UID)
    web.open("l", "tcp", "127.0.0.1")
    assert web.register("l").result == "ok"
