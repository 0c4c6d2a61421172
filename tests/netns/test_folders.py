# SPDX-License-Identifier: LGPL-2.1-or-later
"""The directories of policies: what is not what it should be refuses the load, and takes neither rules, sockets nor the
copy of the policy last taken away."""

import os
import pathlib
import re
import shutil

import pytest

from harness import silent_file
from words import add_routes, everywhere, handed_over, section, who

WEB = section("web", 61001, everywhere())


def link_to_nowhere(broker):
    shutil.rmtree(broker.config / "conf.d")
    os.symlink("/nowhere/conf.d", broker.config / "conf.d")
    return f"{broker.config}/conf.d: the directory is a link to nowhere, mend the link or remove it"


def link_above(broker):
    os.rename(broker.config, "/run/elsewhere")
    os.symlink("/nowhere", broker.config)
    return f"{broker.config}/conf.d: {broker.config} is a link to nowhere, mend the link or remove it"


def file_in_its_place(broker):
    shutil.rmtree(broker.config / "conf.d")
    (broker.config / "conf.d").write_text(WEB)
    return f"{broker.config}/conf.d: cannot open the directory, .*: Not a directory"


def link_to_itself(broker):
    shutil.rmtree(broker.config / "conf.d")
    os.symlink("conf.d", broker.config / "conf.d")
    return "conf.d: cannot open the directory, .*: Too many levels of symbolic links"


def file_that_is_a_link_to_nowhere(broker):
    (broker.config / "conf.d/50-test.conf").unlink()
    os.symlink("/nowhere", broker.config / "conf.d/50-test.conf")
    return f"{broker.config}/conf.d/50-test.conf: the file is a link to nowhere, mend the link or remove it"


FAULTS = pytest.mark.parametrize("fault", [link_to_nowhere, link_above, file_in_its_place, link_to_itself,
                                           file_that_is_a_link_to_nowhere], ids=lambda fault: fault.__name__)


@pytest.fixture(name="web")
def _web(broker, spawn):
    add_routes()
    broker.policy(WEB).start()
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    return web


def copy_of(broker):
    return (broker.state / "policy").read_bytes()


@FAULTS
def test_a_folder_that_is_none_refuses_a_reload_and_changes_nothing(broker, web, fault):
    # pylint: disable=unused-argument
    before, copy = broker.snapshot(), copy_of(broker)
    message = fault(broker)
    status, output = broker.reload()
    assert status == 1 and re.search(message, output), output
    assert broker.snapshot() == before and copy_of(broker) == copy
    assert who("tcp", "ipv4") == "web"
    assert broker.status()[0]["state"] == "degraded"


@FAULTS
def test_a_folder_that_is_none_leaves_the_policy_last_taken_at_a_start(broker, web, fault):
    # pylint: disable=unused-argument
    copy = copy_of(broker)
    broker.kill()
    message = fault(broker)
    broker.start()
    broker.wait_log(message)
    assert who("tcp", "ipv4") == "web"
    status = broker.status()[0]
    assert status["state"] == "degraded" and "the last-known-good policy is in force" in status["reason"]
    assert copy_of(broker) == copy


def missing(broker):
    shutil.rmtree(broker.config / "conf.d")


def empty(broker):
    (broker.config / "conf.d/50-test.conf").unlink()


@pytest.mark.parametrize("gone", [missing, empty], ids=lambda gone: gone.__name__)
@pytest.mark.parametrize("restart", [False, True], ids=["reload", "start"])
def test_folders_without_a_file_are_a_policy_without_services_and_never_replace_the_copy(broker, web, gone, restart):
    # pylint: disable=unused-argument
    copy = copy_of(broker)
    gone(broker)
    warning = f"{broker.config}/conf.d: (warning: )?there is no policy file, here or in any other directory"
    if restart:
        broker.kill()
        broker.start()
    else:
        assert broker.reload()[0] == 0
    broker.wait_log(warning)
    assert broker.list() == [] and broker.status()[0]["state"] == "running"
    assert copy_of(broker) == copy
    # One file, though it says nothing, is what somebody meant.
    (broker.config / "conf.d").mkdir(exist_ok=True)
    broker.policy("")
    assert broker.reload()[0] == 0
    assert copy_of(broker) != copy


def test_limits_by_a_link_to_nowhere_are_an_error(broker):
    os.symlink("/nowhere", broker.config / "sockbrokerd.conf")
    broker.policy(WEB).start()
    broker.wait_log("sockbrokerd.conf: the file is a link to nowhere, mend the link or remove it")


def test_status_warns_of_settings_that_do_not_apply_until_a_broker_starts_with_better_ones(broker):
    """The broker starts without them, with limits that nobody chose, and who asks status is to know."""
    settings = broker.config / "sockbrokerd.conf"
    settings.write_text("[Broker]\nMaxBindings=64k\nMaxSokets=4\n")
    broker.policy(WEB).start()
    said = (f"2 errors in the settings of the broker, which started without these lines (the first: {settings}:2: "
            'MaxBindings=: "64k" is not a number from 1 to 16777216): mend them and restart it')
    assert broker.status()[0]["warnings"] == [said]
    assert said in broker.ctl("status")[1]
    settings.write_text("[Broker]\nMaxBindings=64000\n")
    assert broker.reload()[0] == 0
    assert broker.status()[0]["warnings"] == [said], "limits are read at the start alone"
    broker.stop()
    broker.start()
    assert broker.status()[0]["warnings"] == []


def test_verify_of_another_root_names_a_directory_that_cannot_be_listed(broker):
    silent_file.make_device()
    folder = pathlib.Path("/run/root/etc/sockbroker/conf.d")
    folder.mkdir(parents=True)
    with silent_file.broken_directory(folder):
        status, said = broker.ctl("verify", "--root=/run/root")
    assert status == 1
    assert said.splitlines() == [f"{folder}: cannot list the directory: Input/output error"]
