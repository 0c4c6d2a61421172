# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine on which the Debian packages are installed, upgraded and removed, and packages of other versions for it.

tests/packages makes what these name:

    SOCKBROKER_PACKAGES  the folder that has the packages
    SOCKBROKER_CLEAN     a root that has what they depend on, and what the tests ask with
    SOCKBROKER_TOOLS     a root that has the servers of the tutorial and what debian/tests needs as well
    SOCKBROKER_EARLIER   packages of an earlier commit, which had fewer units; empty where there are none
"""
import os
import pathlib
import re
import shutil
import subprocess

from machine import Machine

PACKAGES = os.environ.get("SOCKBROKER_PACKAGES")
CONFFILE = "/etc/sockbroker/conf.d/10-local.conf"
DOCS = "/usr/share/doc/sockbroker"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Options::=--force-confold --no-install-recommends --allow-downgrades"
# Package managers, caches, logs, and what PID 1 keeps between boots.
OTHERS = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/var/tmp",
          "/var/lib/systemd/timers", "/root")
SERVE = f"""
for prefix in 192.0.2.0/24 198.51.100.0/24 2001:db8:1::/48 2001:db8:2::/48; do ip route add local $prefix dev lo; done
cp {DOCS}/examples/hello.service {DOCS}/examples/echo.service /etc/systemd/system/
cp {DOCS}/examples/conf.d/hello.conf {DOCS}/examples/conf.d/echo.conf /etc/sockbroker/conf.d/
systemctl daemon-reload && systemctl reload sockbrokerd && systemctl start hello.service echo.service
sockbrokerctl wait hello --for=live --timeout=30s && sockbrokerctl wait echo --for=live --timeout=30s
"""


def packages_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return [file for file in sorted(folder.glob("*.deb")) if "-dbgsym_" not in file.name]


def version_of(package: pathlib.Path) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, "Version"], capture_output=True, text=True, check=True).stdout.strip()


def repack(source: pathlib.Path, target: pathlib.Path, suffix: str, conffile: str = "") -> pathlib.Path:
    """The same packages as another version, with a line more in the conffile: dpkg acts on versions and sums alone."""
    target.mkdir()
    for package in packages_of(source):
        tree = target / "tree"
        subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
        old, control = version_of(package), tree / "DEBIAN/control"
        control.write_text(re.sub(rf"(^Version: |\(= ){re.escape(old)}", rf"\g<0>{suffix}", control.read_text(), flags=re.M))
        if conffile and (tree / CONFFILE[1:]).exists():
            with (tree / CONFFILE[1:]).open("a") as file:
                file.write(conffile)
        subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, target / package.name], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
    return target


class Packaged(Machine):
    def bring(self, folder: pathlib.Path, name: str) -> str:
        """Where the packages are in the machine."""
        place = f"/root/{name}"
        self.run(f"mkdir -p {place}")
        for package in packages_of(pathlib.Path(folder)):
            shutil.copy(package, f"/proc/{self.leader}/root{place}")
        return place

    def install(self, folder: pathlib.Path, name: str = "packages") -> str:
        """What apt says of it, as with `apt install ./*.deb`."""
        return self.run(f"{APT} install {self.bring(folder, name)}/*.deb 2>&1", timeout=300).stdout

    def state(self, unit: str) -> str:
        return self.run(f"systemctl is-active {unit}", check=False).stdout.strip()

    def files(self) -> set[str]:
        """Of the whole machine, but for what is not a package's."""
        prunes = " -o ".join(f"-path {path}" for path in OTHERS)
        return set(self.out(f"find / \\( {prunes} \\) -prune -o -print").splitlines())

    def failed(self) -> str:
        return self.out("systemctl list-units --failed --plain --no-legend 'sock*' '*sockbroker*' hello.service echo.service")
