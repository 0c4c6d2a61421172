# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/servers/unpack, with an apt-get that is made for the test."""

import os
import pathlib
import subprocess

import pytest

UNPACK = pathlib.Path(__file__).resolve().parents[1] / "servers/unpack"
# It has two packages to install, of which the second cannot be downloaded, or not unpacked.
APT = """#!/bin/bash
case $1 in
install) printf 'Inst one (1)\\nInst two (1)\\n' ;;
download) echo 'no package' >one.deb; [[ $APT_DOWNLOADS = both ]] ;;
esac
"""


@pytest.mark.parametrize("downloads", ["one", "both"])
def test_a_download_that_fails_leaves_no_folder_and_no_mark_that_it_was_done(tmp_path, downloads):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apt-get").write_text(APT)
    (tmp_path / "bin/apt-get").chmod(0o755)
    done = subprocess.run([UNPACK, "one"], capture_output=True, text=True, check=False, timeout=60,
                          env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "APT_DOWNLOADS": downloads,
                               "SOCKBROKER_CACHE": str(tmp_path / "cache")})
    assert done.returncode != 0 and done.stdout == "", done
    servers, = (tmp_path / "cache").iterdir()
    assert list((servers / "packages").iterdir()) == [], done
