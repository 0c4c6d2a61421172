# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a build compiles, for tests/headers and tests/tidy, from its compile_commands.json."""

import json
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).resolve().parent.parent


def units(build):
    """(files, command) of each unit: its files of the project in their order, more than one in a unity build, and the
    words of its command, which runs in the build."""
    for entry in json.loads((build / "compile_commands.json").read_text()):
        file = (build / entry["file"]).resolve()
        files = [file]
        if re.search(r"-unity\d+\.c(pp)?$", file.name):
            files = [pathlib.Path(name).resolve() for name in re.findall(r"^#include<(.*)>$", file.read_text(), re.M)]
        files = [file for file in files if file.is_relative_to(ROOT) and not file.is_relative_to(build)
                 and file.suffix != ".h"]  # a precompiled one
        if files:
            yield files, [word for word in shlex.split(entry["command"]) if word != "ccache"]


def without_output(words):
    """A command without the file that it compiles, its precompiled header and all that names what it writes."""
    dropped = {"-o": 2, "-MF": 2, "-MQ": 2, "-c": 2, "-MD": 1, "-include": 2}
    kept, i = [], 0
    while i < len(words):
        if words[i] in dropped:
            i += dropped[words[i]]
            continue
        kept.append(words[i])
        i += 1
    return kept
