# SPDX-License-Identifier: LGPL-2.1-or-later
"""The broker's own sandbox, from outside while it serves, and from inside a broker that was taken over."""

import ctypes
import errno
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess

import pytest

from harness import broker as broker_module
from harness import kernel, takeover
from unprivileged import as_the_units_do
from words import everywhere, handed_over, section

pytestmark = pytest.mark.skipif(broker_module.TRIAL is not None, reason="there is no sandbox in a trial of it")

TAKEOVER = broker_module.BUILD / "tests/sandbox/sockbrokerd-takeover"


def threads(pid):
    """Of each thread, what /proc says of its privilege."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        yield int(task.name), dict(re.findall(r"^(\w+):\s*(\S+)", (task / "status").read_text(), re.M))


@pytest.mark.parametrize("by", ["root", "its-own-user"])
def test_every_process_and_thread_of_it_is_confined_and_has_no_capability(netns, spawn, by):
    # pylint: disable=unused-argument
    broker = broker_module.Broker(activated=True)
    if by == "its-own-user":
        as_the_units_do(broker)
    try:
        broker.policy(section("web", 61001, everywhere())).start()
        handed_over(spawn("web"), "tcp", "ipv4")
        assert broker.reload()[0] == 0
        broker.helper("sb-door")
        processes = [broker.process.pid, *broker.helpers("names"), *broker.helpers("sb-zygote"),
                     *broker.helpers("sb-door"), *broker.helpers("sb-intake"), *broker.helpers("sb-disposal")]
        assert len(processes) >= 8, \
            "itself, names and its keeper, the zygote, the door, two hands of each kind at least"
        for process in processes[1:]:
            for thread, status in threads(process):
                for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                    assert int(status[which], 16) == 0, (process, thread, which)
                assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), (process, thread)
        seen = dict(threads(broker.process.pid))
        assert len(seen) >= 3, "the loop, the journal's writer, the loader"
        for thread, status in seen.items():
            for which in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
                assert int(status[which], 16) == 0, (thread, which)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert int(status["CapBnd"], 16) == 0
    finally:
        broker.discard()


def leavings():
    return [path for folder in ("/tmp", "/run", "/etc", "/dev/shm") for path in pathlib.Path(folder).glob("mine")]


class Taken:
    """A taken-over broker and a victim: a service under another uid that serves meanwhile."""

    def __init__(self, by, attempt=""):
        for path in leavings():  # of a run in which the sandbox did not hold
            path.unlink()
        self.broker = broker_module.Broker(activated=by != "root", program=TAKEOVER)
        if by != "root":
            as_the_units_do(self.broker)
        self.victim = subprocess.Popen(["sleep", "1000"], user=61666)  # pylint: disable=consider-using-with
        self.broker.environment = {"SOCKBROKER_TAKEOVER": attempt, "SOCKBROKER_VICTIM": str(self.victim.pid)}
        self.broker.policy(section("web", 61001, everywhere()))

    def end(self):
        assert self.victim.poll() is None, "the victim is gone"
        self.victim.kill()
        self.victim.wait()
        self.broker.discard()


@pytest.fixture
def taken(netns):  # pylint: disable=unused-argument
    if not TAKEOVER.exists():
        pytest.skip("built without -Dsandbox_tests=true")
    made = []

    def take(*arguments):
        made.append(Taken(*arguments))
        return made[-1].broker
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract:
        abstract.bind("\0sockbroker-victim")
        abstract.listen(1)
        yield take
        for one in made:
            one.end()


@pytest.mark.parametrize("by", ["root", "its-own-user"])
def test_a_broker_taken_over_can_do_no_more_than_the_manual_says(taken, by):
    if not takeover.landlock_version():
        pytest.skip("this kernel has no Landlock")
    broker = taken(by).start()
    broker.wait_log("takeover end 0")
    met = takeover.met(broker.log())
    expected = dict(takeover.meets())
    if by == "root":
        # /etc has to be read, for accounts; who is root's uid may read all of it. docs/security.md says so.
        expected["read-shadow"] = 0
    assert met == expected
    assert broker.ask("VERB=version").result == "ok"
    assert not leavings()


@pytest.mark.parametrize("attempt", takeover.DEADLY)
def test_a_broker_taken_over_ends_when_it_tries(taken, attempt):
    broker = taken("root", attempt)
    with pytest.raises(RuntimeError):
        broker.start()
    assert broker.process.returncode == -signal.SIGSYS
    assert "takeover" not in broker.log()


SECCOMP, LANDLOCK_CREATE_RULESET = 317, 444


def refuse(number, error):
    """For preexec_fn: one system call less for what is executed."""
    def install():
        filters = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, number, 0x06, 0, 0, 0x00050000 | error,
                              0x06, 0, 0, 0x7fff0000)
        text = ctypes.create_string_buffer(filters)
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(text)))
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(22, 2, ctypes.addressof(program))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    return install


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are of x86-64")
def test_without_its_filter_the_broker_does_not_start(broker):
    done = subprocess.run([str(broker.program), *broker.options()], preexec_fn=refuse(SECCOMP, errno.EPERM),
                          stderr=subprocess.PIPE, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "cannot install the system call filter, and the broker does not serve without it" in done.stderr


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are of x86-64")
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_kernel_without_landlock_the_broker_serves_and_says_so(broker, error):
    process = subprocess.Popen([str(broker.program), *broker.options()], text=True, stderr=subprocess.PIPE,
                               preexec_fn=refuse(LANDLOCK_CREATE_RULESET, error))
    try:
        line = process.stderr.readline()
        assert "cannot restrict access to files with Landlock" in line, line
        assert process.stderr.readline().startswith("start: ")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_policy_that_is_a_link_out_of_the_folders_is_refused_with_its_name(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    outside = pathlib.Path("/run/elsewhere.conf")
    outside.write_text(section("other", 61002, "ListenStream=9000"))
    (broker.config / "conf.d/90-link.conf").symlink_to(outside)
    status, output = broker.reload()
    assert status == 1
    assert "90-link.conf: cannot read the file" in output
