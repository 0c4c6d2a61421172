# SPDX-License-Identifier: LGPL-2.1-or-later
r"""The code that documents show, block by block, in the order in which a reader meets it.

In Markdown the language of a fence says what a block is; in a manual page (.EX to .EE) its first line does:

    sh        commands, for root's shell
    console   commands behind "# " (root) or "$ " (an ordinary user), and below each what it prints. "..." is anything,
              blanks and line ends are all alike
    others    a file: the first line is "# /its/path". Several may follow one another in a block of a manual page
    c         a part of a program, which compiles without a warning; in a manual page the first line is .\" c
    text      nothing of these: a drawing, a message

What cannot be run says why, in a comment in front of the block: <!-- not run: REASON -->, in a manual page
.\" not run: REASON
"""
import dataclasses
import pathlib
import re

FENCE = re.compile(r"^ *```(\w*)$")
PATH = re.compile(r"^# (/[\w./@+-]+)$")
REASON = re.compile(r'^(?:<!-- not run: (.+) -->|\.\\" not run: (.+))$')
C_IN_MANUAL = r".\" c"  # a comment, which nobody sees
OPEN = ("\\", "|")  # ends of lines
HERE_DOCUMENT = re.compile(r"<<'?(\w+)'?")


@dataclasses.dataclass
class Block:
    """`kind` is sh, console, file, c or text; `path` is that of a file; `reason`, if not empty, says why it is not
    run."""
    where: str
    kind: str
    text: str
    path: str = ""
    reason: str = ""


@dataclasses.dataclass
class Command:
    root: bool
    text: str
    shown: str | None = None  # None: the document shows no output

    def matches(self, printed: str) -> bool:
        if self.shown is None:
            return True
        shown = re.escape(" ".join(self.shown.split())).replace(r"\.\.\.", ".*")
        return re.fullmatch(shown, " ".join(printed.split()), re.S) is not None


def classify(where: str, language: str, lines: list[str], reason: str) -> list[Block]:
    """The blocks that one fence, or one .EX, holds."""
    text = "\n".join(lines) + "\n"
    if language in ("sh", "console", "c", "text"):
        return [Block(where, language, text, reason=reason)]
    if reason and not PATH.match(lines[0]):
        return [Block(where, "extract", text, reason=reason)]
    if not lines or not PATH.match(lines[0]):
        raise ValueError(f"{where}: neither commands (sh, console), nor c or text, nor a file whose first line is # "
                         "/its/path, "
                         "nor is there a comment that says why it is not run")
    blocks = []
    for line in lines:
        if path := PATH.match(line):
            blocks.append(Block(where, "file", "", path=path[1], reason=reason))
        else:
            blocks[-1].text += line + "\n"
    return blocks


def of_markdown(document: pathlib.Path) -> list[Block]:
    blocks, reason, inside, before = [], "", None, ""
    for number, line in enumerate(document.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if inside is None and fence:
            inside, begun, indent = [], number, len(line) - len(line.lstrip())
            language = fence[1]
        elif inside is not None and fence:
            blocks += classify(f"{document.name}:{begun}", language, inside, reason)
            inside, reason = None, ""
        elif inside is not None:
            inside.append(line[indent:])
        elif line.startswith("    ") and not before and not re.match(r" +([*-]|\d\.) ", line):
            raise ValueError(f"{document.name}:{number}: code without a fence")
        elif said := REASON.match(line.strip()):
            reason = said[1]
        elif line:
            reason = ""
        before = line
    return blocks


def roff(line: str) -> str:
    for escape, text in ((r"\-", "-"), (r"\(aq", "'"), (r"\(dq", '"'), (r"\&", ""), (r"\e", "\\")):
        line = line.replace(escape, text)
    return line


def of_manual(page: pathlib.Path) -> list[Block]:
    blocks, reason, inside = [], "", None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line == ".EX":
            inside, begun = [], number
        elif line == ".EE":
            language = "console" if inside[0][:2] in ("# ", "$ ") and not PATH.match(inside[0]) else ""
            if inside[0] == C_IN_MANUAL:
                language, inside = "c", inside[1:]
            blocks += classify(f"{page.name}:{begun}", language, inside, reason)
            inside, reason = None, ""
        elif inside is not None:
            inside.append(roff(line))
        elif said := REASON.match(line):
            reason = said[2]
    return blocks


def blocks_of(document: pathlib.Path) -> list[Block]:
    return of_markdown(document) if document.suffix == ".md" else of_manual(document)


def commands(block: Block) -> list[Command]:
    """Of a console block: each with what it shows. After a backslash or a pipe at its end a line goes on, and so does a
    here-document."""
    found, more = [], ""  # more: what the command still waits for
    for line in block.text.splitlines():
        if more:
            found[-1].text += "\n" + line
            more = "" if line == more or (more == OPEN and not line.endswith(OPEN)) else more
        elif line[:2] in ("# ", "$ "):
            found.append(Command(line[0] == "#", line[2:]))
            here = HERE_DOCUMENT.search(line)
            more = here[1] if here else OPEN if line.endswith(OPEN) else ""
        elif not found:
            raise ValueError(f"{block.where}: output before the first command")
        else:
            found[-1].shown = (found[-1].shown or "") + line + "\n"
    return found
