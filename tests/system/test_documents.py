# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the documents show works as it stands: each on a machine of its own, command by command, file by file, in the
order of the page, with what they print compared. documents.py says how blocks are marked. recipes.md: test_recipes.py.

A file that a document shows must also be of use: a unit is started by what follows, a policy is taken, a profile
compiles.
"""
import os
import re
import shlex

import documents
import pytest
from conftest import PREFIXES, SOURCE
from machine import Machine

PAGES = [SOURCE / "README.md", *sorted((SOURCE / "docs").glob("*.md")), *sorted((SOURCE / "docs/man").iterdir())]
# A machine on which the files have just come: what its first boot has done is undone.
BEFORE_INSTALL = """
systemctl disable --now sockbrokerd.socket sockbrokerd.service sockbroker-routes.socket; sockbrokerctl unload
sed -i /^sockbroker:/d /etc/passwd /etc/group /etc/shadow /etc/gshadow
rm -rf /run/sockbroker/n* /run/sockbroker/control /var/lib/sockbroker /var/lib/systemd/catalog/database
! getent passwd sockbroker
"""
ORDINARY = "setpriv --reuid=61001 --regid=61001 --clear-groups --"
STARTED = "39f53479d3a045ac8e11786248231fbf"  # MESSAGE_ID of a start job that is done, sd-messages.h
UNIT = re.compile(r"/etc/systemd/system/([^/]+?)(\.d/[^/]+)?")


class Reader:
    """Somebody who does what a document says, and no more: neither manager is told of a file but by commands that are
    shown. What no command reads is tried at the end."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self.units = set()
        self.unread = {}  # policies that were not in force yet, and where they are shown

    def run(self, where: str, command: str, must_succeed: bool = True) -> str:
        """What it printed, which where a failure is shown is what counts. A process that it leaves in the background
        has a file to write to, not the pipe."""
        done = self.machine.run(f"sh -c {shlex.quote(command)} >/run/printed 2>&1; code=$?; cat /run/printed; exit "
                                "$code",
                                check=False, timeout=120)
        assert done.returncode == 0 or not must_succeed, \
            f"{where}: exit status {done.returncode} of\n{command}\n{done.stdout}"
        return done.stdout

    def script(self, block: documents.Block) -> None:
        self.run(block.where, "set -e\n" + block.text)
        self.look_what_is_in_force()

    def session(self, block: documents.Block) -> None:
        for command in documents.commands(block):
            printed = self.run(block.where, command.text if command.root else
                               f"{ORDINARY} sh -c {shlex.quote(command.text)}", command.shown is None)
            assert command.matches(printed), f"{block.where}: {command.text}\nshows\n{command.shown}\nprints\n{printed}"
            self.look_what_is_in_force()

    def file(self, block: documents.Block) -> None:
        self.machine.write(block.path, block.text)
        if unit := UNIT.fullmatch(block.path):
            self.units.add(unit[1])
        elif "/conf.d/" in block.path:
            self.run(block.where, "sockbrokerctl verify")
            self.unread[block.path] = block.where
        elif "/sockbrokerd.conf" in block.path:
            self.run(block.where, "sockbrokerctl verify && systemctl restart sockbrokerd")
        elif "/sandbox/" in block.path:
            self.run(block.where, "sockbroker-run --dump")
        else:
            read = ("/etc/nginx/", "/etc/unbound/", "/etc/caddy/", "/etc/nsd/", "/etc/containers/systemd/",
                    "/etc/systemd/user/", "/srv/")
            assert block.path.startswith(read), f"{block.where}: who reads it?"

    def program(self, block: documents.Block) -> None:
        self.run(block.where, f"printf %s {shlex.quote(block.text)} | gcc -Wall -Wextra -Werror -fsyntax-only -x c -")

    def runs(self, block: documents.Block) -> bool:
        newer = re.match(r"needs systemd (\d+)", block.reason)
        return int(self.machine.out("systemctl --version").split()[1]) >= int(newer[1]) if newer else not block.reason

    def look_what_is_in_force(self) -> None:
        if self.unread:
            said = self.machine.run("sockbrokerctl --json=short bindings", check=False).stdout
            self.unread = {path: where for path, where in self.unread.items() if f'"{path}"' not in said}

    def read(self, blocks: list[documents.Block]) -> None:
        for block in blocks:
            if block.kind != "text" and self.runs(block):
                {"sh": self.script, "console": self.session, "file": self.file, "c": self.program}[block.kind](block)
        if self.unread and self.machine.run("systemctl is-active sockbrokerd", check=False).returncode == 0:
            self.run(", ".join(self.unread.values()), "systemctl reload sockbrokerd")
            self.look_what_is_in_force()
            assert not self.unread
        self.machine.run("journalctl --sync")
        for unit in sorted(self.units):
            assert self.run(unit, f"systemd-analyze verify --man=no {unit}") == ""
            assert self.run(unit,
                            f"journalctl -q -b MESSAGE_ID={STARTED} UNIT={unit}"), f"{unit} is shown and not started"


@pytest.fixture
def booted(stage, tmp_path):
    machine = Machine(stage, tmp_path / "console.log", os.environ.get("SOCKBROKER_SYSTEM_ROOT", "/"))
    machine.run("mkdir -p /etc/sockbroker/conf.d")  # meson install makes it; the /etc of this machine began empty
    yield machine
    machine.end()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "recipes.md"], ids=lambda page: page.name)
def test_what_a_document_shows_works_as_it_stands(request, page):
    blocks = documents.blocks_of(page)
    if all(block.reason or block.kind == "text" for block in blocks):
        return  # and no machine for it
    booted = request.getfixturevalue("booted")
    if page.name in ("README.md", "install.md"):
        booted.run(BEFORE_INSTALL)
    elif page.name not in ("udp.md", "unmodified.md"):  # whose policies have LocalRoutes=yes
        for prefix in PREFIXES:
            booted.run(f"ip route add local {prefix} dev lo")
    Reader(booted).read(blocks)


def test_what_is_not_run_says_why():
    """And nearly all is run."""
    blocks = [block for page in PAGES for block in documents.blocks_of(page) if block.kind != "text" or block.reason]
    assert all(len(block.reason.split()) >= 3 for block in blocks if block.reason)
    assert sum(not block.reason for block in blocks) >= 3 * sum(bool(block.reason) for block in blocks)


@pytest.mark.parametrize("unit",
                         ["sockbrokerd.service", "sockbrokerd.socket", "sockbrokerd@.service", "sockbrokerd@.socket",
                                  "run-sockbroker-bpf.mount"])
def test_the_documentation_of_a_unit_is_manual_pages_that_are_installed(stage, unit):
    named = re.findall(r"^Documentation=(.*)$", (stage / "usr/lib/systemd/system" / unit).read_text(), re.M)
    assert named
    for page in " ".join(named).split():
        name, section = re.fullmatch(r"man:(\S+)\((\d)\)", page).groups()
        assert list((stage / f"usr/share/man/man{section}").glob(f"{name}.{section}*")), page
