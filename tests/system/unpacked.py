# SPDX-License-Identifier: LGPL-2.1-or-later
"""A throw-away machine that has the files of Debian packages, as if they had been installed, with none of their
services enabled. tests/servers/unpack unpacks them; they are laid under the machine's /usr, and nothing is copied."""
import contextlib
import pathlib
import shutil
import subprocess

from machine import Machine

UNPACK = pathlib.Path(__file__).resolve().parents[1] / "servers/unpack"
ETC = "usr/share/unpacked-etc"


class NotToBeHad(Exception):
    """There is no mirror, or it does not have them."""


def unpack(packages: tuple[str, ...], base: str = "/") -> pathlib.Path:
    other = [f"--root={base}"] if base != "/" else []
    done = subprocess.run([UNPACK, *other, *packages], capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise NotToBeHad(f"Debian's packages are not to be had here: {done.stderr.strip().splitlines()[-1:]}")
    return pathlib.Path(done.stdout.strip())


@contextlib.contextmanager
def machine(stage: pathlib.Path, folder: pathlib.Path, packages: tuple[str, ...], accounts: tuple[str, ...],
            base: str = "/"):
    """`accounts`: system users that installation scripts would have made. `base`: the root of another Debian than this
    machine's, whose packages these are then."""
    root = unpack(packages, base)
    between = folder / "between"
    units = {path.name for where in ("lib", "usr/lib") for path in (root / where / "systemd/system").glob("*.*")}
    units |= {f"{name}.service" for name in ("bird", "frr", "nginx", "unbound")}  # installed here, perhaps
    if (root / "lib").is_dir():  # from before /lib became /usr/lib
        shutil.copytree(root / "lib", between / "usr/lib", symlinks=True)
    # And settings of these.
    installed = [(pathlib.Path(base) / "etc" / name, name) for name in ("nginx", "unbound")]
    for source, name in ((root / "etc", ""), *installed):
        if source.is_dir():
            shutil.copytree(source, between / ETC / name, symlinks=True, dirs_exist_ok=True)
    for path, lines in (("systemd/system-preset/00-unpacked.preset", [f"disable {unit}\n" for unit in units]),
                        ("sysusers.d/unpacked.conf", [f"u {name} - - /var/lib/{name}\n" for name in accounts])):
        file = between / "usr/lib" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))
    made = Machine(stage, folder / "console.log", base, masked=("postgresql",), under=(root, between))
    try:
        # -n of newer coreutils fails for what is there.
        made.run(f"cp -r --update=none /{ETC}/. /etc/ 2>/dev/null || cp -rn /{ETC}/. /etc/")
        yield made
    finally:
        made.end()
