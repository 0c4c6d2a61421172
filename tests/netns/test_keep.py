# SPDX-License-Identifier: LGPL-2.1-or-later
"""reload --keep beside a disk that takes long: the copy of the policy is written, and nobody else waits for that; and
what comes meanwhile: a reload, another keep, the end of the trial, the end of the broker."""

import contextlib
import json
import os
import select
import signal
import subprocess
import time

import pytest

from harness import namespace, wire
from harness.directory import Directory
from harness.disk import Disk
from harness.until import until
from words import everywhere, section

FIRST = section("first", 61001, everywhere())
HOUR = "TIMEOUT_USEC=3600000000"


@pytest.fixture(name="disk")
def _disk(broker):
    disk = Disk(broker)
    yield disk
    disk.fast()


def policy_of(name):
    return FIRST + section(name, 61001, everywhere(81))


def load(broker, name, *lines):
    broker.policy(policy_of(name))
    reply = broker.ask("\n".join(("VERB=reload", *lines)))
    assert reply.result == "ok", reply


def copy(broker):
    return (broker.state / "policy").read_text(encoding="utf-8")


def services(broker):
    return set(broker.status()[1])


@contextlib.contextmanager
def asked(broker, text):
    """A request that is on its way."""
    with wire.Control(broker.control_path) as control:
        control.send(text)
        yield control


def is_answered(control):
    return bool(select.select([control.sock], [], [], 0)[0])


def test_nobody_waits_for_the_copy_of_a_policy_that_is_kept_but_who_keeps_it(broker, disk):
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    disk.slow()
    with asked(broker, "VERB=keep") as keep:
        disk.wait()
        for _ in range(20):
            assert broker.ask("VERB=version").result == "ok"
        assert broker.status()[0]["policy"]["trial_until"] is None, "it is kept"
        assert not is_answered(keep), "not before the copy is written"
        disk.fast()
        reply = keep.receive()
        assert (reply.result, reply.message) == ("ok", "the policy in force is kept")
    assert "Service second" in copy(broker)
    assert broker.status()[0]["state"] == "running"
    broker.stop()
    broker.policy("nonsense\n").start()
    assert services(broker) == {"first", "second"}, "the copy is whole"


def test_a_second_keep_has_nothing_to_keep(broker, disk):
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    disk.slow()
    with asked(broker, "VERB=keep") as keep:
        disk.wait()
        assert broker.ask("VERB=keep").result == "not-held"
        disk.fast()
        assert keep.receive().result == "ok"
    assert broker.ask("VERB=keep").result == "not-held"


def test_a_reload_that_is_asked_while_a_copy_is_written_has_its_own_after_it(broker, disk):
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    disk.slow()
    with asked(broker, "VERB=keep") as keep:
        disk.wait()
        broker.policy(policy_of("third"))
        with asked(broker, "VERB=reload") as reload:
            assert broker.ask("VERB=version").result == "ok"
            assert not is_answered(reload) and services(broker) == {"first", "second"}
            disk.fast()
            assert keep.receive().result == "ok"
            assert reload.receive().result == "ok"
    assert services(broker) == {"first", "third"} and "Service third" in copy(broker)
    assert broker.status()[0]["state"] == "running"


def test_a_keep_that_is_asked_while_a_reload_writes_its_copy_leaves_that_alone(broker, disk):
    """Two writers of one temporary file would leave neither copy."""
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    disk.slow()
    broker.policy(policy_of("third"))
    with asked(broker, "VERB=reload") as reload:
        disk.wait()
        with asked(broker, "VERB=keep") as keep:
            assert broker.ask("VERB=version").result == "ok"
            assert not is_answered(reload) and not is_answered(keep)
            disk.fast()
            assert reload.receive().result == "ok"
            assert keep.receive().result == "ok"
    assert services(broker) == {"first", "third"} and "Service third" in copy(broker)
    status = broker.status()[0]
    assert status["policy"]["trial_until"] is None and status["state"] == "running"


def test_what_is_kept_does_not_go_back_however_long_its_copy_takes(broker, disk):
    broker.policy(FIRST).start()
    load(broker, "second", "TIMEOUT_USEC=2000000")
    until_usec = broker.status()[0]["policy"]["trial_until"]
    disk.slow()
    with asked(broker, "VERB=keep") as keep:
        disk.wait()
        assert time.time() * 1e6 < until_usec, "in time"
        # And two more rounds of the clock that looks at trials.
        until("the end of the trial", lambda: time.time() * 1e6 > until_usec + 2_200_000)
        assert services(broker) == {"first", "second"}
        disk.fast()
        assert keep.receive().result == "ok"
    until("another round", lambda: time.time() * 1e6 > until_usec + 3_400_000)
    assert services(broker) == {"first", "second"} and "Service second" in copy(broker)
    assert broker.status()[0]["state"] == "running"


def test_a_reload_on_trial_that_is_on_its_way_goes_back_to_what_was_kept_meanwhile(broker):
    """And to nothing older."""
    directory = Directory(broker)
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    directory.says("hang third")
    broker.policy(FIRST + "[Service third]\nUser=third\n" + everywhere(81))
    with asked(broker, "VERB=reload\nTIMEOUT_USEC=1000000") as reload:
        broker.wait_log("directory asked: user third")
        with asked(broker, "VERB=keep") as keep:
            until("the policy to be kept", lambda: broker.status()[0]["policy"]["trial_until"] is None)
            assert not is_answered(keep) and not is_answered(reload)
            directory.says("ok")
            assert reload.receive().result == "ok"
            assert keep.receive().result == "ok"
    assert "Service second" in copy(broker)
    until("the one before to come back", lambda: services(broker) == {"first", "second"})
    assert "was not kept in time" in broker.status()[0]["reason"]


def test_the_end_of_the_broker_waits_for_the_copy(broker, disk):
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    disk.slow()
    with asked(broker, "VERB=keep"):
        disk.wait()
        broker.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            broker.process.wait(0.3)
        disk.fast()
        broker.stop()
    broker.policy("nonsense\n").start()
    assert services(broker) == {"first", "second"}


def test_a_broker_that_is_killed_before_the_copy_is_written_has_the_one_before(broker, disk):
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    disk.slow()
    with asked(broker, "VERB=keep") as keep:
        disk.wait()
        broker.kill()
        with contextlib.suppress(ConnectionResetError):
            assert keep.sock.recv(4096) == b"", "nobody was told that it is kept"
    disk.fast()
    broker.policy("nonsense\n").start()
    assert services(broker) == {"first"}
    load(broker, "second", HOUR)
    assert broker.ask("VERB=keep").result == "ok"
    assert "Service second" in copy(broker), "what was left half written is in nobody's way"


def test_a_keep_ends_no_other_reason_for_which_the_broker_is_degraded(broker):
    """What is on disk is refused still, and the next boot would find it there."""
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    broker.policy("nonsense\n")
    assert broker.ask("VERB=reload").result == "malformed"
    before = broker.status()[0]
    assert broker.ask("VERB=keep").result == "ok"
    after = broker.status()[0]
    assert (after["state"], after["reason"]) == ("degraded", before["reason"]) and "policy refused" in after["reason"]
    assert after["degraded_since"] == before["degraded_since"]
    load(broker, "second")
    assert broker.status()[0]["state"] == "running"


def test_a_keep_ends_what_was_wrong_with_the_trial_alone(broker):
    broker.policy(FIRST).start()
    os.rename(broker.state, "/run/elsewhere")
    load(broker, "second", HOUR)
    assert "which a restart of the broker would forget" in broker.status()[0]["reason"]
    os.rename("/run/elsewhere", broker.state)
    assert broker.ask("VERB=keep").result == "ok"
    assert broker.status()[0]["state"] == "running"


def test_a_copy_that_cannot_be_written_is_told_by_status_and_the_policy_stays(broker):
    broker.policy(FIRST).start()
    load(broker, "second", HOUR)
    os.rename(broker.state, "/run/elsewhere")
    reply = broker.ask("VERB=keep")
    assert (reply.result, reply.message) == ("ok", "the policy in force is kept")
    assert len(reply.warnings) == 1 and "cannot keep a copy of the policy" in reply.warnings[0]
    status = broker.status()[0]
    assert status["policy"]["trial_until"] is None and services(broker) == {"first", "second"}
    assert status["state"] == "degraded" and "cannot keep a copy of the policy" in status["reason"]
    broker.wait_log("cannot keep a copy of the policy")


def test_of_a_read_only_state_directory_status_says_what_could_not_be_written_and_nothing_of_what_is_not_there(broker):
    broker.policy(FIRST).start()
    namespace.run("mount", "--bind", str(broker.state), str(broker.state))
    namespace.run("mount", "-o", "remount,ro,bind", str(broker.state))
    load(broker, "second")
    reason = broker.status()[0]["reason"]
    assert "cannot keep a copy of the policy" in reason and "Read-only file system" in reason
    assert "trial" not in reason, "no policy was on trial"


def test_whoever_reloads_or_keeps_is_told_that_the_copy_cannot_be_written(broker):
    broker.policy(FIRST).start()
    os.rename(broker.state, "/run/elsewhere")
    warned = f"sockbrokerctl: warning: cannot keep a copy of the policy in {broker.state}/policy"

    def kept():
        load(broker, "second", HOUR)
        return "reload", "--keep"

    broker.policy(policy_of("second"))
    assert broker.ctl("reload", "--confirm=1h")[0] == 0, "no copy is asked for yet"
    status, said = broker.ctl(*kept())
    assert status == 1 and warned in said, "whoever keeps it wants the copy"
    status, said = broker.ctl("--json=short", *kept())
    row = json.loads([line for line in said.splitlines() if line.startswith("[")][-1])[-1]
    assert status == 1 and (row["file"], row["line"], row["severity"]) == ("", 0, "warning")
    assert "cannot keep a copy of the policy" in row["message"]
    status, said = broker.ctl("reload")
    assert status == 0 and warned in said, "it is in force"
    os.rename("/run/elsewhere", broker.state)
    assert broker.ctl("reload") == (0, "") and broker.status()[0]["state"] == "running"
