# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of accounts in a policy, and sockbrokerctl verify, which asks the directory for itself."""

import os
import pathlib
import subprocess
import time

import pytest

from harness import kernel
from harness.broker import BUILD
from harness.directory import MS_BIND
from test_names import STRANGER, UID
from words import everywhere


def verify(broker, *arguments):
    began = time.monotonic()
    done = subprocess.run([BUILD / "sockbrokerctl", "verify", "--config-dir", broker.config, *arguments],
                          env=os.environ | broker.environment, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout, time.monotonic() - began


@pytest.mark.parametrize("mode", ["hang", "slow 60000", "unavail"])
def test_verify_says_of_a_directory_that_hangs_what_the_broker_says_and_ends(broker, directory, mode):
    directory.says(mode)
    broker.policy("[Service web]\nUser=nobody-here local1\nGroup=local2 team\n" + everywhere())
    for arguments, least, most in (([], 4.5, 20), (["--timeout=1s"], 0.9, 4.4), (["--offline"], 0, 4.4)):
        status, said, seconds = verify(broker, *arguments)
        assert status == 0, said
        for key, name in (("User", "nobody-here"), ("Group", "team")):
            silent = f"warning: {key}=: {name} has no answer from this host's directory just now (NSS)"
            assert (silent in said) == ("--offline" not in arguments), said
        # Others that are behind it have their answer.
        for key, name in (("User", "local1"), ("Group", "local2")):
            absent = f"{key}=: {name} does not exist on this host"
            assert (absent in said) == ("--offline" not in arguments), said
        assert (least if mode != "unavail" else 0) <= seconds < most


@pytest.mark.parametrize("user", [0, STRANGER])
def test_verify_takes_the_groups_of_the_broker_from_their_file_where_the_directory_hangs(broker, directory, user):
    """Else it would call unreadable what the broker's user reads as a member of a group."""
    for path, line in (("/etc/passwd", "sockbroker:x:61050:61050::/:/bin/false\n"),
                       ("/etc/group", "sockbroker:x:61050:\npolicies:x:61051:sockbroker\n")):
        copy = pathlib.Path("/run") / pathlib.Path(path).name
        copy.write_text("".join(entry for entry in pathlib.Path(path).read_text().splitlines(keepends=True)
                                if not entry.startswith("sockbroker:")) + line)
        kernel.mount(str(copy), path, None, MS_BIND)
    folder = pathlib.Path("/run/sockbroker/conf.d")
    folder.mkdir(parents=True)
    for name, group in (("shared", 61051), ("closed", 61052)):
        (folder / f"{name}.conf").write_text(f"[Service {name}]\nUser=0\n")
        # The caller may look at both, whoever it is; the broker's user is judged as a member of their groups.
        os.chown(folder / f"{name}.conf", user, group)
        (folder / f"{name}.conf").chmod(0o640)
    directory.says("hang")
    with open(BUILD / "sockbrokerctl", "rb") as program:
        done = subprocess.run([f"/proc/self/fd/{program.fileno()}", "verify"], pass_fds=[program.fileno()], cwd="/",
                              user=user, group=user, extra_groups=[], env=os.environ | broker.environment, text=True,
                              capture_output=True, check=False, timeout=30)
    assert done.returncode == 1 and f"{folder}/closed.conf: cannot read the file" in done.stdout, done
    assert "shared.conf: cannot" not in done.stdout and "shared.conf: you may" not in done.stdout, done


def test_verify_waits_for_a_slow_directory_once_for_all_names(broker, directory):
    directory.add("name0", UID)
    directory.says("slow 1000")
    broker.policy("[Service web]\nUser=" + "\nUser=".join(f"name{i}" for i in range(20)) + "\n" + everywhere())
    status, said, seconds = verify(broker)
    assert status == 0 and "name0" not in said and "name19 does not exist" in said, said
    assert seconds < 8, "one after the other they take twenty"
