# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-run and the other processes of the same user: /proc/PID/mem is a file, and no filter of system calls tells
one file from another. So the kernel's Landlock keeps the program from them, as from what systemd runs for ExecReload=
with the program's user and without its filter."""

import ctypes
import pathlib
import subprocess

import pytest

from harness import sandbox

UID = 61001
# Tells where it has its word, and what the word is when it has read a line.
OTHER = """
import ctypes, sys
word = ctypes.create_string_buffer(b"own word")
print(ctypes.addressof(word), flush=True)
sys.stdin.readline()
print(word.value.decode(), flush=True)
"""
LOOK = r"""
import errno, os, signal, sys
pid, address = map(int, sys.argv[1:])
def tries(code):
    try:
        return code() or "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def write():
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    os.pwrite(memory, b"the word", address)
print(tries(write), tries(lambda: os.readlink(f"/proc/{pid}/fd/0") and None),
      tries(lambda: os.stat(f"/proc/{pid}/root/") and None))
pid = os.fork()
if pid == 0:
    signal.pause()
print(tries(lambda: os.readlink(f"/proc/{pid}/fd/0") and None))
os.kill(pid, signal.SIGKILL)
"""
HOW = [["--profile=default", "--no-register"], ["--profile=strict", "--no-register"], ["--supervise", "--no-register"]]
each_way = pytest.mark.parametrize("how", HOW, ids=["default", "strict", "supervise"])


@pytest.fixture(name="alone", autouse=True)
def _alone(netns):  # pylint: disable=unused-argument
    sandbox.install()
    if ctypes.CDLL(None).syscall(444, None, 0, 1) < 2:  # landlock_create_ruleset(2): the ABI
        pytest.skip("this kernel has no Landlock")


@pytest.fixture(name="other")
def _other():
    with subprocess.Popen(["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "/usr/bin/python3", "-c",
                           OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def looked(other, *how):
    """What the program heard, of the other and of its own child; and the other's word then."""
    address = other.stdout.readline().strip()
    done = subprocess.run(sandbox.command(*how, "/usr/bin/python3", "-c", LOOK, other.pid, address,
                                                     ambient=""),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=sandbox.TIMEOUT,
                          check=True)
    other.stdin.write("\n")
    other.stdin.flush()
    return done.stdout.splitlines(), other.stdout.readline().strip()


@each_way
def test_it_looks_into_no_other_process_of_its_user_and_into_its_own(other, how):
    assert looked(other, *how) == (["EACCES EACCES EACCES", "done"], "own word")


def test_the_same_where_the_unit_has_a_filter_that_permits_it(other):
    profile = pathlib.Path("/run/unit.profile")
    profile.write_text("default: log\nallow read\n")
    assert looked(other, "--no-register", f"--profile={profile}", "/run/bin/sockbroker-run", *HOW[0]) == (
        ["EACCES EACCES EACCES", "done"], "own word")


@each_way
def test_where_the_units_filter_kills_for_landlock_it_starts_without(how):
    profile = pathlib.Path("/run/unit.profile")
    profile.write_text("default: log\nkill landlock_create_ruleset landlock_add_rule landlock_restrict_self\n")
    # The outer one is in a domain itself before it has that filter.
    status, output, said = sandbox.run("--no-register", f"--profile={profile}", "/run/bin/sockbroker-run", *how,
                                       "/bin/echo", "started", ambient="")
    assert (status, output) == (0, "started\n"), said


FILES = """
set -e
mkdir one two
echo text >one/file
mv one/file two/file
ln two/file one/link
mv two three
mv three one/three
cat one/link one/three/file
"""
UNNAMED = """
import ctypes, os
file = os.open("one", os.O_TMPFILE | os.O_WRONLY, 0o600)
os.write(file, b"text")
ctypes.CDLL(None).linkat(-100, b"/proc/self/fd/%d" % file, -100, b"one/three/made", 0x400)  # AT_SYMLINK_FOLLOW
print(os.stat("one/three/made").st_size)
"""


@each_way
def test_its_files_are_moved_and_linked_between_folders_as_ever(how):
    folder = pathlib.Path("/run/own")
    folder.mkdir()
    folder.chmod(0o777)
    for command, wanted in ((["/bin/sh", "-c", FILES], "text\ntext\n"), (["/usr/bin/python3", "-c", UNNAMED], "4\n")):
        done = subprocess.run(sandbox.command(*how, *command, ambient=""), stdin=subprocess.DEVNULL, cwd=folder,
                              capture_output=True, text=True, timeout=sandbox.TIMEOUT, check=False)
        assert (done.stdout, done.returncode) == (wanted, 0), done.stderr
