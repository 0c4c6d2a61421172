# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl beside policy files on a file system that does not answer: a FUSE server that is silent."""

import contextlib
import json
import os
import pathlib
import subprocess
import time

import pytest

from harness import kernel, silent_file
from harness.broker import BUILD
from harness.directory import MS_BIND
from words import everywhere

BROKER = 61050
NAMED = "within --timeout="


@pytest.fixture(name="silent")
def _silent(broker):
    """A function: from now on what `operation` asks of a policy file has no answer. Returns the file's path."""
    silent_file.make_device()
    with contextlib.ExitStack() as ends:

        def become(operation, folder=broker.config / "conf.d", **more):
            (folder / "silent").mkdir(parents=True)
            (folder / "90-silent.conf").symlink_to("silent/file")
            file = silent_file.SilentFile((operation,), path=str(folder / "silent"), opened=False, **more)
            ends.callback(file.end)
            return folder / "90-silent.conf"

        yield become


def run(broker, *arguments):
    """One that waits for the file system cannot be killed: it is left behind, and ends with that."""
    began = time.monotonic()
    one = subprocess.Popen(  # pylint: disable=consider-using-with
        [BUILD / "sockbrokerctl", *arguments], env=os.environ | broker.environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = one.communicate(timeout=20)
    return one.returncode, out, err, time.monotonic() - began


@pytest.mark.parametrize("operation", [silent_file.READ, silent_file.OPEN, silent_file.LOOKUP])
@pytest.mark.parametrize("how", ["", "--offline", "named"])
def test_verify_ends_in_time_and_names_the_file_whose_file_system_is_silent(broker, silent, operation, how):
    broker.policy("[Service web]\nUser=0\n" + everywhere())
    path = silent(operation)
    arguments = [path] if how == "named" else ["--config-dir", broker.config, *filter(None, [how])]
    status, out, err, seconds = run(broker, "verify", "--timeout=1s", *arguments)
    assert (status, out) == (1, "") and f"{path}: no answer {NAMED}" in err, err
    assert 0.9 <= seconds < 4


def test_a_file_system_that_is_silent_to_the_broker_alone_is_said_to_be(broker, silent):
    for path, line in (("/etc/passwd", f"sockbroker:x:{BROKER}:{BROKER}::/:/bin/false\n"),
                       ("/etc/group", f"sockbroker:x:{BROKER}:\n")):
        copy = pathlib.Path("/run") / pathlib.Path(path).name
        copy.write_text("".join(entry for entry in pathlib.Path(path).read_text().splitlines(keepends=True)
                                if not entry.startswith("sockbroker:")) + line)
        kernel.mount(str(copy), path, None, MS_BIND)
    empty, end = os.pipe()
    os.close(end)
    path = silent(silent_file.OPEN, pathlib.Path("/run/sockbroker/conf.d"), silent_to=BROKER, content=empty,
                  shared=True)
    status, out, err, seconds = run(broker, "verify", "--timeout=1s", "--json=short")
    said = json.loads(out)
    assert status == 1 and NAMED in said["message"] and "user sockbroker" in said["message"], (path, err)
    assert 0.9 <= seconds < 4


def test_cat_ends_in_time_and_names_the_file(broker, silent):
    path = silent(silent_file.READ)
    status, out, err, seconds = run(broker, "cat", "--timeout=1s", "--config-dir", broker.config)
    assert (status, out) == (1, "") and f"{path}: no answer {NAMED}" in err, err
    assert seconds < 4


def test_status_ends_in_time_with_a_warning_that_names_the_file(broker, silent):
    broker.policy("[Service web]\nUser=0\n" + everywhere()).start()
    path = silent(silent_file.READ)
    began = time.monotonic()
    said = json.loads(broker.ctl("status", "--json=short", "--timeout=1s", "--config-dir", broker.config)[1])
    assert any(f"{path}: no answer {NAMED}" in one for one in said["warnings"]), said
    assert time.monotonic() - began < 4


def test_unload_takes_dispatch_away_beside_settings_that_do_not_answer(broker, silent):
    broker.policy("[Service web]\nUser=0\n" + everywhere()).start().kill()
    path = silent(silent_file.READ, broker.config / "sockbrokerd.conf.d")
    status, out, err, seconds = run(broker, "unload", "--timeout=1s", "--config-dir", broker.config)
    assert (status, out) == (1, "") and f"{path}: no answer {NAMED}" in err and "by the usual numbers" in err, err
    assert seconds < 4 and not list((broker.bpffs / "dispatch").glob("*")), err
