# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the Debian packages bring for people and for Debian's own tests: documents, manual pages, the tutorial,
debian/tests. On machines that have the servers of the tutorial too. `tests/packages` runs this; packaged.py says what
it needs.
"""
import os
import pathlib
import re
import shutil
import subprocess

import documents
import pytest
from conftest import SOURCE
from packaged import DOCS, PACKAGES, Packaged, packages_of
from test_documents import Reader

pytestmark = pytest.mark.skipif(not PACKAGES, reason="no packages: tests/packages makes them, and runs this")
# Prints each link of a document that leads to no file.
LINKS = r"""
import pathlib, re
documents = [file for file in pathlib.Path("DOCS").rglob("*.md")]
assert len(documents) > 15
for document in documents:
    text = re.sub(r"^ *```.*?^ *```", "", document.read_text(), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    for link in links:
        if not re.match(r"[a-z]+:", link) and not (document.parent / link).exists():
            print(document, link)
""".replace("DOCS", DOCS)


@pytest.fixture(name="machine")
def _machine(tmp_path):
    machine = Packaged(None, tmp_path / "console.log", os.environ["SOCKBROKER_TOOLS"])
    yield machine
    machine.end()


def test_links_of_installed_documents_lead_to_installed_documents(machine):
    machine.install(pathlib.Path(PACKAGES))
    assert machine.run("python3 -", text=LINKS).stdout == ""


def test_man_has_no_warning_of_an_installed_page(machine):
    machine.install(pathlib.Path(PACKAGES))
    pages = machine.out("dpkg -L sockbroker libsockbroker0 libsockbroker-dev sockbroker-exporter | grep "
                        "'^/usr/share/man/.*[.]gz$'").split()
    assert len(pages) >= 13
    for page in pages:
        done = machine.run(f"LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z {page} 2>&1 >/dev/null")
        assert done.stdout == "", page
    assert "sockbrokerd" in machine.out("man -w sockbrokerd")


def test_the_tutorial_works_with_nothing_but_the_packages(machine):
    machine.install(pathlib.Path(PACKAGES))
    Reader(machine).read(documents.blocks_of(SOURCE / "docs/tutorial.md"))


def test_debian_s_own_tests_pass(machine, tmp_path):
    """autopkgtest installs the packages itself."""
    subprocess.run(["dpkg-source", "--no-check", "-x", next(pathlib.Path(PACKAGES).glob("*.dsc")), tmp_path / "source"],
                   check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(tmp_path / "source", f"/proc/{machine.leader}/root/root/source", symlinks=True)
    place = machine.bring(pathlib.Path(PACKAGES), "packages")
    names = " ".join(f"{place}/{package.name}" for package in packages_of(pathlib.Path(PACKAGES)))
    machine.run("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*")  # all that is needed is here
    done = machine.run(f"autopkgtest --ignore-restrictions=isolation-machine {names} /root/source/ -- null 2>&1",
                       check=False, timeout=600)
    assert done.returncode == 0, done.stdout
    results = re.findall(r"^(\S+) +(PASS|FAIL|SKIP|FLAKY)", done.stdout.rpartition("summary\n")[2], re.M)
    assert results == [("serve", "PASS"), ("build", "PASS")], done.stdout
