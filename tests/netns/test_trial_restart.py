# SPDX-License-Identifier: LGPL-2.1-or-later
"""reload --confirm= and a broker that ends within the span: the next one keeps the promise to go back, whatever is left
of the one before it."""

import contextlib
import os
import re
import shutil
import time

import pytest

from harness import client, wire
from harness.allocations import Allocations
from harness.directory import Directory
from harness.disk import Disk
from harness.until import until
from words import ADDRESS, add_routes, everywhere, handed_over, section

UID = 61001
FIRST = section("first", UID, everywhere())
SECOND = section("first", UID, everywhere(7001)) + section("second", UID, everywhere())
THIRD = FIRST + section("third", UID, everywhere(82))
HOUR = 3_600_000_000
NOT_KEPT = "was not kept in time"


def load(broker, policy, usec=None):
    broker.policy(policy)
    reply = broker.ask("VERB=reload" + ("" if usec is None else f"\nTIMEOUT_USEC={usec}"))
    assert reply.result == "ok", reply
    return reply


def services(broker):
    return set(broker.status()[1])


def trial_until(broker):
    return broker.status()[0]["policy"]["trial_until"]


def record(broker):
    return broker.state / "trial"


def copy(broker):
    return (broker.state / "policy").read_text(encoding="utf-8")


def restart(broker, end="kill"):
    getattr(broker, end)()
    return broker.start()


def change(broker, key, value):
    text = record(broker).read_text(encoding="ascii")
    record(broker).write_text(re.sub(f"^{key} .*", f"{key} {value}", text, flags=re.M), encoding="ascii")


def wait_for_the_end(usec):
    until("the end of the trial", lambda: time.time() * 1e6 > usec)


@pytest.fixture(name="on_trial")
def _on_trial(broker):
    """SECOND is on trial for an hour, and FIRST is what comes back."""
    broker.policy(FIRST).start()
    load(broker, SECOND, HOUR)
    return broker


def is_back(broker, digest):
    """FIRST is in force, and the broker says why."""
    status = broker.status()[0]
    assert services(broker) == {"first"} and status["policy"]["digest"] == digest
    assert status["policy"]["trial_until"] is None
    assert status["state"] == "degraded" and NOT_KEPT in status["reason"], status
    assert status["refused_policy"]["digest"] not in ("", digest)
    return True


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_trial_goes_on_after_a_restart_as_if_there_had_been_none(on_trial, spawn, end):
    broker = on_trial
    add_routes()
    handed_over(spawn("second", UID), "tcp", "ipv4", service="second")
    before = broker.status()[0]["policy"]
    restart(broker, end)
    after = broker.status()[0]
    assert services(broker) == {"first", "second"} and after["policy"]["digest"] == before["digest"]
    assert abs(after["policy"]["trial_until"] - before["trial_until"]) < 100_000
    assert after["state"] == "running"
    assert "Trial: the policy before comes back" in broker.ctl("status")[1]
    assert client.ask("tcp", ADDRESS["ipv4"], 7000).name == "second"
    assert "second" not in copy(broker), "what was not kept is not the last known good"
    broker.wait_log("on trial still")


@pytest.mark.parametrize("restarted", [False, True])
def test_a_trial_is_over_at_the_time_that_was_told(broker, restarted):
    """As soon as it is over, of several trials each, whenever in the broker's own second they began."""
    broker.policy(FIRST).start()
    late = []
    for _ in range(3):
        load(broker, FIRST)
        # Between two looks of the broker, every second from its start on; and with time to restart.
        load(broker, SECOND, 2_500_000 if restarted else 1_300_000)
        end = trial_until(broker)
        if restarted:
            restart(broker)
        until("the policy before", lambda: services(broker) == {"first"})
        late.append(time.time() * 1e6 - end)
    assert min(late) >= -100_000 and min(late) < 400_000, late


def test_a_trial_ends_at_its_time_after_a_restart(broker):
    broker.policy(FIRST).start()
    digest = broker.status()[0]["policy"]["digest"]
    load(broker, SECOND, 6_000_000)
    end = trial_until(broker)
    restart(broker)
    assert services(broker) == {"first", "second"}
    until("the policy before", lambda: services(broker) == {"first"})
    assert time.time() * 1e6 >= end - 100_000, "not before its time"
    assert is_back(broker, digest)


def test_a_trial_that_ends_while_no_broker_runs_is_over_at_the_start(broker):
    broker.policy(FIRST).start()
    digest = broker.status()[0]["policy"]["digest"]
    load(broker, SECOND, 2_000_000)
    end = trial_until(broker)
    broker.kill()
    wait_for_the_end(end)
    broker.start()
    assert is_back(broker, digest)
    broker.wait_log(f"{NOT_KEPT}.*the trial was over when the broker started")
    assert "over when the broker started" in broker.ctl("status")[1]
    assert broker.ask("VERB=keep").result == "not-held", "too late"
    restart(broker)
    assert is_back(broker, digest), "as long as it is what is on disk"
    load(broker, SECOND)
    assert broker.status()[0]["state"] == "running" and not record(broker).exists()
    restart(broker)
    assert services(broker) == {"first", "second"} and trial_until(broker) is None, "a reload takes it for good"


def test_a_policy_that_was_not_kept_does_not_come_back_by_a_restart(broker):
    broker.policy(FIRST).start()
    digest = broker.status()[0]["policy"]["digest"]
    load(broker, SECOND, 1_000_000)
    until("the policy before", lambda: services(broker) == {"first"})
    restart(broker)
    assert is_back(broker, digest)


def test_a_policy_can_be_kept_after_a_restart(on_trial):
    restart(on_trial)
    assert on_trial.ask("VERB=keep").result == "ok"
    assert "Service second" in copy(on_trial) and not record(on_trial).exists()
    restart(on_trial)
    assert services(on_trial) == {"first", "second"} and trial_until(on_trial) is None
    assert on_trial.status()[0]["state"] == "running"
    on_trial.stop()
    on_trial.policy("nonsense\n").start()
    assert services(on_trial) == {"first", "second"}


def test_several_restarts_in_one_trial_move_no_deadline(on_trial):
    first = trial_until(on_trial)
    for _ in range(3):
        restart(on_trial)
    assert abs(trial_until(on_trial) - first) < 200_000


def test_a_trial_is_over_when_the_machine_has_booted(on_trial):
    on_trial.kill()
    change(on_trial, "boot", "5" * 32)
    on_trial.start()
    assert services(on_trial) == {"first"}
    assert "the machine was booted during the trial" in on_trial.status()[0]["reason"]


@pytest.mark.parametrize("policy, names", [(THIRD, {"first", "third"}), (FIRST, {"first"})],
                         ids=["a third", "the one before"])
def test_another_policy_on_disk_ends_the_trial_as_a_reload_of_it_would(on_trial, policy, names):
    on_trial.kill()
    on_trial.policy(policy).start()
    assert services(on_trial) == names and trial_until(on_trial) is None
    assert on_trial.status()[0]["state"] == "running" and not record(on_trial).exists()
    on_trial.wait_log("ends the trial")
    assert f"Service {max(names)}" in copy(on_trial)


def test_a_start_with_another_policy_says_nothing_of_a_trial_that_is_over(on_trial):
    on_trial.kill()
    change(on_trial, "boot", "5" * 32)
    before = len(on_trial.log())
    on_trial.policy(FIRST).start()
    assert services(on_trial) == {"first"} and not record(on_trial).exists()
    until("the start to be in the log", lambda: "start: 1 services" in on_trial.log()[before:])
    assert "on trial" not in on_trial.log()[before:]


def test_a_policy_without_any_file_ends_no_trial_at_a_start(on_trial):
    """A mount that is missing looks the same."""
    on_trial.kill()
    folder = on_trial.config / "conf.d"
    os.rename(folder, "/run/elsewhere")
    on_trial.start()
    assert services(on_trial) == set() and trial_until(on_trial) is None
    on_trial.kill()
    os.rename("/run/elsewhere", folder)
    on_trial.start()
    assert services(on_trial) == {"first", "second"} and trial_until(on_trial) is not None


def test_a_policy_on_disk_with_an_error_is_still_no_reason_to_lose_the_one_before(on_trial):
    on_trial.kill()
    on_trial.policy("nonsense\n").start()
    assert services(on_trial) == {"first"} and "last-known-good" in on_trial.status()[0]["reason"]


def _huge(path):
    with open(path, "wb") as file:
        file.truncate(1 << 40)


DAMAGES = {
    "empty": lambda path, whole: path.write_bytes(b""),
    "cut": lambda path, whole: path.write_bytes(whole[:-1]),
    "longer": lambda path, whole: path.write_bytes(whole + b"\n"),
    "twice": lambda path, whole: path.write_bytes(whole * 2),
    "bytes": lambda path, whole: path.write_bytes(whole.replace(b"until ", b"until \0\xff")),
    "negative": lambda path, whole: path.write_bytes(whole.replace(b"until ", b"until -")),
    "vast": lambda path, whole: path.write_bytes(whole.replace(b"until ", b"until " + b"9" * 30)),
    "version": lambda path, whole: path.write_bytes(whole.replace(b"trial 1", b"trial 2")),
    "huge": lambda path, whole: _huge(path),
    "directory": lambda path, whole: (path.unlink(), path.mkdir()),
    "fifo": lambda path, whole: (path.unlink(), os.mkfifo(path)),
    "device": lambda path, whole: (path.unlink(), path.symlink_to("/dev/zero")),
    "nowhere": lambda path, whole: (path.unlink(), path.symlink_to("/nonexistent/file")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_told_and_loses_nothing(on_trial, damage):
    broker = on_trial
    broker.kill()
    DAMAGES[damage](record(broker), record(broker).read_bytes())
    broker.start()
    status = broker.status()[0]
    assert services(broker) == {"first", "second"} and status["policy"]["trial_until"] is None
    assert status["state"] == "degraded"
    assert f"the record of a policy on trial in {record(broker)} is ignored" in status["reason"]
    broker.wait_log("the record of a policy on trial")
    assert "Service second" not in copy(broker), "the policy before may be nowhere else"
    if damage == "directory":
        record(broker).rmdir()
    load(broker, SECOND)
    assert broker.status()[0]["state"] == "running" and "Service second" in copy(broker)
    restart(broker)
    assert broker.status()[0]["state"] == "running" and not record(broker).is_symlink()


def test_a_deadline_that_no_trial_can_have_is_over(on_trial):
    on_trial.kill()
    change(on_trial, "until", str((1 << 63) - 1))
    on_trial.start()
    assert services(on_trial) == {"first"} and NOT_KEPT in on_trial.status()[0]["reason"]


@pytest.mark.parametrize("lose", [os.unlink, lambda path: os.truncate(path, 10)], ids=["gone", "damaged"])
def test_without_the_policy_before_the_one_on_trial_stays_and_a_reload_decides(on_trial, lose):
    on_trial.kill()
    lose(on_trial.state / "policy")
    on_trial.start()
    status = on_trial.status()[0]
    assert services(on_trial) == {"first", "second"} and status["policy"]["trial_until"] is None
    assert status["state"] == "degraded" and "the one before cannot come back" in status["reason"]
    load(on_trial, SECOND)
    assert on_trial.status()[0]["state"] == "running" and "Service second" in copy(on_trial)


def test_where_the_very_policy_before_has_no_copy_the_last_known_good_one_comes_back(on_trial):
    """Its copy could not be written, which was told then."""
    on_trial.kill()
    change(on_trial, "before", "5" * 32)
    change(on_trial, "until", "1")
    on_trial.start()
    assert services(on_trial) == {"first"} and "an older one" in on_trial.status()[0]["reason"]


def test_a_policy_without_any_file_comes_back_too(broker):
    """It never has a copy, and an older one is there."""
    broker.policy(FIRST).start()
    shutil.rmtree(broker.config / "conf.d")
    assert broker.ask("VERB=reload").result == "ok" and services(broker) == set()
    (broker.config / "conf.d").mkdir()
    load(broker, SECOND, HOUR)
    restart(broker)
    assert services(broker) == {"first", "second"} and trial_until(broker) is not None
    broker.kill()
    change(broker, "until", "1")
    broker.start()
    assert services(broker) == set() and NOT_KEPT in broker.status()[0]["reason"]


def test_there_is_no_trial_where_nothing_could_come_back(broker, spawn):
    """Both the policy on disk and its copy are lost, as by an upgrade that refuses them: what the kernel has serves on,
    and going back to no policy would take it away."""
    broker.policy(FIRST).start()
    add_routes()
    handed_over(spawn("first", UID), "tcp", "ipv4", service="first")
    broker.kill()
    (broker.state / "policy").unlink()
    broker.policy("nonsense\n").start()
    assert client.ask("tcp", ADDRESS["ipv4"], 7000).name == "first"
    broker.policy(FIRST + "# mended\n")
    reply = broker.ask("VERB=reload\nTIMEOUT_USEC=1000000")
    assert reply.result == "malformed" and "reload without --confirm=" in reply.message, reply
    status = broker.status()[0]
    assert status["state"] == "degraded" and status["policy"]["trial_until"] is None and not record(broker).exists()
    assert client.ask("tcp", ADDRESS["ipv4"], 7000).name == "first"
    load(broker, FIRST + "# mended\n")
    assert broker.status()[0]["state"] == "running" and len(broker.list()) == 1
    load(broker, SECOND, HOUR)
    assert trial_until(broker) is not None, "now there is one that can"


def test_nothing_on_trial_is_in_force_before_it_is_on_record(broker):
    disk = Disk(broker)
    broker.policy(FIRST).start()
    broker.policy(SECOND)
    disk.slow()
    with wire.Control(broker.control_path) as control:
        control.send(f"VERB=reload\nTIMEOUT_USEC={HOUR}")
        disk.wait()
        assert services(broker) == {"first"}
        assert {row["service"] for row in broker.ask("VERB=bindings").lines} == {"first"}
        disk.fast()
        assert control.receive().result == "ok"
    assert record(broker).exists() and trial_until(broker) is not None


def test_after_a_trial_on_trial_what_was_kept_last_comes_back(on_trial):
    load(on_trial, THIRD, HOUR)
    restart(on_trial)
    assert services(on_trial) == {"first", "third"}
    load(on_trial, THIRD, 100_000)
    until("what was kept last", lambda: services(on_trial) == {"first"})


def test_what_was_kept_while_a_reload_on_trial_was_on_its_way_comes_back_after_a_restart(broker):
    directory = Directory(broker)
    broker.policy(FIRST).start()
    load(broker, SECOND, HOUR)
    directory.says("hang third")
    broker.policy(FIRST + "[Service third]\nUser=third\n" + everywhere(81))
    with contextlib.ExitStack() as stack:
        reload = stack.enter_context(wire.Control(broker.control_path))
        reload.send("VERB=reload\nTIMEOUT_USEC=2000000")
        broker.wait_log("directory asked: user third")
        keep = stack.enter_context(wire.Control(broker.control_path))
        keep.send("VERB=keep")
        until("the policy to be kept", lambda: trial_until(broker) is None)
        directory.says("ok")
        assert reload.receive().result == "ok" and keep.receive().result == "ok"
    end = trial_until(broker)
    broker.kill()
    wait_for_the_end(end)
    broker.start()
    assert services(broker) == {"first", "second"} and "an older one" not in broker.status()[0]["reason"]


def test_whoever_begins_a_trial_that_cannot_be_on_record_is_told(broker):
    broker.policy(FIRST).start()
    os.rename(broker.state, "/run/elsewhere")
    reply = load(broker, SECOND, HOUR)
    assert len(reply.warnings) == 1 and f"cannot note in {record(broker)}" in reply.warnings[0]
    status = broker.status()[0]
    assert status["policy"]["trial_until"] is not None
    assert status["state"] == "degraded" and "which a restart of the broker would forget" in status["reason"]


def test_a_record_that_cannot_be_removed_is_told(on_trial):
    record(on_trial).unlink()
    record(on_trial).mkdir()
    reply = on_trial.ask("VERB=keep")
    assert reply.result == "ok" and len(reply.warnings) == 1 and "cannot remove" in reply.warnings[0]
    assert "Service second" in copy(on_trial) and on_trial.status()[0]["state"] == "degraded"
    record(on_trial).rmdir()
    load(on_trial, SECOND)
    assert on_trial.status()[0]["state"] == "running"


def test_whatever_memory_there_is_the_record_is_of_what_is_on_trial(broker):
    """Or the broker says that it is not."""
    allocations = Allocations(broker)
    broker.policy(FIRST).start()
    refused = taken = 0
    for first in range(1, 400, 7):
        load(broker, SECOND, HOUR)
        broker.policy(THIRD)
        with allocations.failing(first), contextlib.suppress(OSError, EOFError, KeyError, AssertionError):
            broker.ask(f"VERB=reload\nTIMEOUT_USEC={HOUR}")
        until("the end of the reload", lambda: broker.ask("VERB=diff").result in ("ok", "malformed"))
        status = broker.status()[0]
        of_record = re.search("^policy (.*)$", record(broker).read_text(encoding="ascii"), re.M)[1]
        if of_record != status["policy"]["digest"]:
            broker.wait_log("record of the trial")
        refused += "third" not in services(broker)
        taken += "third" in services(broker)
    assert refused and taken
