# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the supervisor may look into the program, where uids alone do not give it the right: yama, undumpable
programs, user namespaces. tests/kernels runs this under each kernel.yama.ptrace_scope."""

import errno
import os
import pathlib
import subprocess

import pytest

from harness import sandbox, supervised
from supervising import UID, ask, everything
from test_supervise_habits import THREAD
from words import add_routes

RUN = str(sandbox.BIN / "sockbroker-run")
COPY = sandbox.BIN / "supervised_thread"  # a program whose file is as a test wants it
SERVED = f"0 0 as {UID}\n"


def ptrace_scope():
    path = pathlib.Path("/proc/sys/kernel/yama/ptrace_scope")
    return int(path.read_text(encoding="ascii")) if path.exists() else 0


somebody_may_look = pytest.mark.skipif(ptrace_scope() == 3, reason="kernel.yama.ptrace_scope is 3")
# With 1 and 2 the user namespace is chosen by itself.
BY_ITSELF = ptrace_scope() > 0
each_way = pytest.mark.parametrize("more", [[], ["--user-namespace=yes"]], ids=["auto", "namespace"])


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(everything("web")).start()
    sandbox.install(THREAD)
    return broker


def run(*words, before=(), after=()):
    """A program to its end: (exit status, standard output, standard error). In front of sockbroker-run a command of
    root's, and one of the user's after it."""
    command = sandbox.command("--supervise", *words, ambient="")
    at = command.index(RUN)
    done = subprocess.run([*before, *command[:at], *after, *command[at:]], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=sandbox.TIMEOUT, check=False)
    return done.returncode, done.stdout, done.stderr


def copied(mode, owner=0):
    os.chown(COPY, owner, owner)
    COPY.chmod(mode)
    return COPY


@pytest.mark.skipif(ptrace_scope() != 3, reason="kernel.yama.ptrace_scope is not 3: tests/kernels")
def test_where_nobody_may_look_into_a_process_the_error_names_the_line_to_change(web):
    for more in [], ["--user-namespace=yes"]:
        status, out, errors = run(*more, "/bin/echo", "started")
        assert (status, out) == (71, "")
        assert "kernel.yama.ptrace_scope is 3" in errors and "set it to 2 or less in sysctl.d" in errors
    assert web.list() == []


# Programs that make themselves undumpable: nobody can know before.

@somebody_may_look
def test_a_program_that_makes_itself_undumpable_is_told_what_to_do(web):  # pylint: disable=unused-argument
    with supervised.Program() as program:
        program.do("libc.prctl(4, 0, 0, 0, 0)")  # PR_SET_DUMPABLE
        if BY_ITSELF:
            program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
            assert ask("192.0.2.1", 80) == f"served {program.process.pid}"
        else:
            assert program.do("sock('tcp', '0.0.0.0', 80)") == "EACCES"
            program.wait_error("--user-namespace=yes")


@somebody_may_look
def test_in_a_user_namespace_of_its_own_it_works_all_the_same(web):
    folder = pathlib.Path("/run/own")
    folder.mkdir()
    os.chown(folder, UID, UID)
    with supervised.Program("--user-namespace=yes", cwd=folder) as program:
        assert program.do("os.getuid(), os.getgid()") == (UID, UID)
        assert program.do("open('/proc/self/uid_map').read().split()") == [str(UID), str(UID), "1"]
        assert int(program.status()["CapEff"], 16) == int(program.status()["CapPrm"], 16) == 0
        program.do("libc.prctl(4, 0, 0, 0, 0)")
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"
        [entry] = web.list()
        assert (entry["pid"], entry["uid"]) == (program.process.pid, UID)
        program.do("u = socket.socket(socket.AF_UNIX); u.bind('a.sock')")
        assert (folder / "a.sock").stat().st_uid == UID
        assert program.do("sock('tcp', '0.0.0.0', 81)") == "EACCES"


# Programs that the kernel may make undumpable when it executes them.

@somebody_may_look
@each_way
def test_a_program_that_its_user_cannot_read_is_not_started(web, more):
    copied(0o711)
    for word, after in (COPY, []), (COPY.name, ["/usr/bin/env", f"PATH=/nowhere:{sandbox.BIN}"]):
        status, out, errors = run(*more, word, "plain", after=after)
        assert (status, out) == (71, ""), errors
        assert f"chmod a+r {COPY}" in errors, errors
    assert web.list() == []


@somebody_may_look
@each_way
def test_one_that_is_its_users_own_runs_in_a_user_namespace(web, more):  # pylint: disable=unused-argument
    copied(0o311, UID)
    assert run(*more, COPY, "plain")[:2] == (0, SERVED)
    status, out, errors = run("--user-namespace=no", COPY, "plain")
    assert (status, out) == (71, "") and (BY_ITSELF or f"chmod a+r {COPY}" in errors), errors


@somebody_may_look
def test_one_that_cannot_be_read_and_is_executed_later_is_told_what_to_do(web):  # pylint: disable=unused-argument
    copied(0o711)
    status, out, errors = run("/bin/sh", "-c", f"exec {COPY} plain")
    assert (status, out) == (0, f"{errno.EACCES} {errno.EACCES} as {UID}\n") and "chmod a+r" in errors, errors


@somebody_may_look
@each_way
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6755])
def test_a_setuid_program_gains_nothing_and_is_no_different(web, more, mode):  # pylint: disable=unused-argument
    status, out, errors = run(*more, copied(mode), "plain")
    assert (status, out) == (0, SERVED), errors


@somebody_may_look
@each_way
@pytest.mark.parametrize("effective", ["", "e"])
def test_a_program_whose_file_has_capabilities_gains_none_and_serves_or_is_not_started(web, more, effective):
    # pylint: disable=unused-argument
    subprocess.run(["setcap", f"cap_net_bind_service={effective}p", copied(0o755)], check=True)
    for before in [], ["setpriv", "--bounding-set=-net_bind_service"]:
        # As a unit with CapabilityBoundingSet= would.
        status, out, errors = run(*more, COPY, "plain", before=before)
        # execve(2) refuses a file whose capabilities must be in force at once where they cannot be.
        if effective and (more or BY_ITSELF or before):
            assert (status, out) == (126, "") and f"setcap -r {COPY}" in errors, errors
        else:
            assert (status, out) == (0, SERVED), errors


# A user namespace that the unit has already.

@somebody_may_look
@each_way
def test_in_a_user_namespace_of_the_unit(web, more):
    """PrivateUsers=yes: the unit's user is itself in there, all others are nobody."""
    before = ["unshare", "--user", f"--map-user={UID}", f"--map-group={UID}"]
    status, out, errors = run(*more, COPY, "plain", after=before)
    assert (status, out) == (0, SERVED), errors
    web.wait_log("register: tcp socket")


@somebody_may_look
def test_in_a_user_namespace_that_does_not_know_its_user(web):  # pylint: disable=unused-argument
    """It is nobody in there, so it cannot have a namespace below it."""
    status, out, errors = run(COPY, "plain", after=["unshare", "--user"])
    if BY_ITSELF:
        assert (status, out) == (71, "") and "user namespace" in errors, errors
    else:
        assert (status, out) == (0, "0 0 as 65534\n"), errors
