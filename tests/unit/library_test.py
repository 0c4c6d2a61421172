# SPDX-License-Identifier: LGPL-2.1-or-later
"""The face of libsockbroker: what it exports is what was released, in the header, and in a manual page; the header is
C89 and C++98, and newer."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = os.environ["LIBSOCKBROKER"]
HEADER = ROOT / "broker/lib/sockbroker.h"
# SYMBOL@VERSION. A line that was released is never taken away or changed; a new function gets the next version.
RELEASED = (ROOT / "tests/data/libsockbroker.symbols").read_text().split()
INLINE = {"sockbroker_unrefp"}


def exported():
    listed = subprocess.run(["nm", "--dynamic", "--defined-only", LIBRARY], capture_output=True, text=True,
                            check=True).stdout
    return sorted(line.split()[2].replace("@@", "@") for line in listed.splitlines() if line.split()[1] != "A")


def declared():
    return set(re.findall(r"\b(sockbroker_\w+)\(", re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)))


def test_it_exports_what_was_released_and_nothing_else():
    assert exported() == sorted(RELEASED)


def test_each_function_of_the_header_is_exported_and_each_exported_one_in_the_header():
    assert declared() - INLINE == {name.partition("@")[0] for name in exported()}


def test_its_name_tells_the_version_of_the_interface():
    header = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    assert re.search(r"\(SONAME\).*\[(.*)\]", header)[1] == "libsockbroker.so.0"


@pytest.mark.parametrize("words", [["gcc", "-std=c89", "-x", "c"], ["gcc", "-std=c11", "-x", "c"],
                                   ["g++", "-std=c++98", "-x", "c++"], ["g++", "-std=c++11", "-x", "c++"]],
                         ids=lambda words: words[1])
def test_the_header_compiles_alone_in_old_programs_too(words):
    done = subprocess.run([*words, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", HEADER],
                          capture_output=True, text=True, check=False)
    # The header is the main file here, where a function that nobody uses would be told.
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("function", sorted(declared()))
def test_a_manual_page_has_each_function_and_is_found_by_its_name(function):
    pages = {page.stem: page.read_text() for page in (ROOT / "docs/man").glob("*.3")}
    [page] = [name for name, text in pages.items()
              if re.search(rf"\b{function}\b", text.partition(".SH NAME")[2].partition(r"\-")[0])]
    assert f"{function}(" in pages[page].partition(".SH SYNOPSIS")[2].partition(".SH DESCRIPTION")[0]
    if function != page:
        installed = (ROOT / "docs/meson.build").read_text()
        names = re.search(rf"'{page}': \[([^\]]*)\]", installed)[1]
        assert f"'{function.removeprefix('sockbroker_')}'" in names
