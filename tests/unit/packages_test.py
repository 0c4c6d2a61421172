# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever `meson install` installs is in one of the Debian packages, and in one only. The packages themselves are made
by tests/packages, which takes minutes.
"""
import fnmatch
import functools
import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "debian"
UNITS = "usr/lib/systemd/system"


@functools.cache
def patterns():
    """Of each package, as dh_install reads them: what debian/PACKAGE.install says, and for units debian/rules."""
    found = {file.stem: file.read_text().split() for file in DEBIAN.glob("*.install")}
    for package, words in re.findall(r"^\tdh_install -p(\S+) (.*) \$\(UNITS\)$", (DEBIAN / "rules").read_text(), re.M):
        found[package] += words.replace("$(UNITS)", UNITS).replace("'", "").split()
    return found


@functools.cache
def installed():
    said = subprocess.run(["meson", "introspect", "--installed", os.environ["SOCKBROKER_BUILD"]], capture_output=True,
                          text=True, check=True)
    found = []
    for source, target in json.loads(said.stdout).items():
        below = pathlib.Path(source).rglob("*") if pathlib.Path(source).is_dir() else []
        files = [f"{target}/{file.relative_to(source)}"[1:] for file in below if file.is_file()]
        found += files or [target[1:]]
    return found


def takes(pattern, file):
    """A pattern takes a file, or the directory that it is in."""
    parts = file.split("/")
    return any(fnmatch.fnmatch("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1))


def packages_of(file):
    return [package for package, words in patterns().items() if any(takes(word, file) for word in words)]


def test_every_installed_file_is_in_one_package():
    files = [file for file in installed() if file != "etc/sockbroker/conf.d"]  # a package's conffile makes it
    assert len(files) > 100
    assert [(file, packages_of(file)) for file in files if len(packages_of(file)) != 1] == []


@pytest.mark.parametrize("package", patterns())
def test_a_package_names_no_file_that_is_not_installed(package):
    files = [*installed(), "etc/sockbroker/conf.d/10-local.conf"]  # brought by debian/rules
    assert [word for word in patterns()[package] if not any(takes(word, file) for file in files)] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/man").iterdir()), ids=lambda page: page.name)
def test_a_manual_page_with_a_table_says_so_in_its_first_line(page):
    """man(1) runs tbl(1) of itself; others, lintian among them, go by that line (man(7))."""
    lines = page.read_text().splitlines()
    assert ".TS" not in lines or lines[0] == "'\\\" t"
