# SPDX-License-Identifier: LGPL-2.1-or-later
"""A throw-away machine: a whole systemd, booted by systemd-nspawn from this machine's own /usr with the project
installed over it, in about a second. /etc and /var are empty, so that sysusers, tmpfiles and presets do what they do
at a first boot.

It must never leave anything behind: mounts live in the container's namespace, its processes in a cgroup of their own
that is killed and removed, and the container dies with the Python process that made it.
"""
import ctypes
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import tempfile
import time

BOOT_SECONDS = 60
HERE = pathlib.Path(__file__).resolve().parent


def _cgroup_roots() -> list[pathlib.Path]:
    """Where systemd-nspawn would put the container: the v2 tree, and v1's name=systemd where that is mounted."""
    roots = []
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            roots.append(pathlib.Path(place))
    return roots


def _remove_cgroup(cgroup: pathlib.Path) -> None:
    for path, _, _ in os.walk(cgroup, topdown=False):
        os.rmdir(path)


def _clear_away(cgroup: pathlib.Path) -> None:
    """The cgroup of a run of these tests that was itself killed, should its machine still be there."""
    kill = cgroup / "cgroup.kill"
    if kill.exists():
        kill.write_text("1")
        end = time.monotonic() + 5
        while "populated 1" in (cgroup / "cgroup.events").read_text() and time.monotonic() < end:
            time.sleep(0.02)
    try:
        _remove_cgroup(cgroup)
    except OSError:
        pass  # v1 has no kill; the next run finds it empty


class Machine:
    """A booted machine. Commands run in all of its namespaces, as its root."""

    _made = 0

    def __init__(self, stage: pathlib.Path | None, log: pathlib.Path, root: str = "/",
                 masked: tuple[str, ...] = ("postgresql", "nginx", "unbound", "bird", "frr"),
                 under: tuple[pathlib.Path, ...] = ()):
        """`stage`: where the project was installed to; None: nowhere, and the machine begins with all of `root`, so
        that packages can be installed. `root`: another Debian than this machine's, as mmdebstrap makes. `masked`:
        services that may be installed here and are not wanted. `under`: directories whose usr/ the machine has beneath
        that of `stage`, the first lowest."""
        number = Machine._made  # several at once have names of their own, the first the shortest
        Machine._made += 1
        self._name = f"sockbroker-test-{f'{number}-' if number else ''}{os.getpid()}"
        self._cgroups = []
        self._process = None
        self.leader = 0
        self.log = log
        self._root = root
        self._masked = masked
        self._layers = [f"{layer}/usr" for layer in (*under, stage)]
        self._managed = pathlib.Path("/run/systemd/system").exists()
        try:
            self._boot(stage)
        except BaseException:
            self.end()
            raise

    def _boot(self, stage: pathlib.Path | None) -> None:
        if not self._managed:  # no systemd here to make a scope for it
            for root in _cgroup_roots():
                for left in root.glob("sockbroker-test-*"):  # of tests that were killed
                    if not pathlib.Path("/proc", left.name.rpartition("-")[2]).exists():
                        _clear_away(left)
                cgroup = root / self._name
                cgroup.mkdir()
                self._cgroups.append(cgroup)
        libc = ctypes.CDLL(None)

        def before_exec() -> None:
            for cgroup in self._cgroups:
                (cgroup / "cgroup.procs").write_text("0")
            # PR_SET_PDEATHSIG: not even kill -9 of the tests leaves a machine behind. SIGTERM, on which nspawn shuts it
            # down; killed, it would leave it running.
            libc.prctl(1, signal.SIGTERM)

        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(f"{folder}/notify")
            ready.settimeout(BOOT_SECONDS)
            with open(self.log, "wb") as log:
                self._process = subprocess.Popen(
                    ["systemd-nspawn", "--quiet", "--register=no", f"--machine={self._name}",
                     f"--directory={self._root}",
                     "--volatile=yes" if stage else "--volatile=overlay", "--boot", "--private-network",
                     "--capability=all",
                     "--system-call-filter=bpf seccomp pidfd_getfd landlock_create_ruleset landlock_add_rule "
                     "landlock_restrict_self",
                     "--link-journal=no", "--notify-ready=yes", "--console=pipe",
                     *([] if self._managed else ["--keep-unit"]),
                     # The project's files over those of this machine, as if a package had brought them.
                     *([f"--overlay-ro={self._root.rstrip('/')}/usr:{':'.join(self._layers)}:/usr"] if stage else []),
                     f"--bind-ro={HERE}:/opt/system-tests",
                     # Of this machine's own services none is wanted, and none may ask questions.
                     "systemd.firstboot=no", "systemd.mask=systemd-firstboot.service", "systemd.mask=nftables.service",
                     "systemd.mask=systemd-networkd.service", "systemd.mask=systemd-resolved.service",
                     *(f"systemd.mask={name}.service" for name in self._masked)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, preexec_fn=before_exec,
                    env={**os.environ, "NOTIFY_SOCKET": f"{folder}/notify", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                         "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"})
            booted = False
            while not booted:
                try:
                    words = ready.recv(4096).decode().splitlines()
                except TimeoutError:
                    raise RuntimeError(f"no machine after {BOOT_SECONDS} s: {self.log.read_text()}") from None
                for word in words:
                    key, _, value = word.partition("=")
                    if key == "X_NSPAWN_LEADER_PID":
                        self.leader = int(value)
                    booted |= word == "READY=1"
        self.run("systemctl is-system-running --wait", check=False)

    def end(self) -> None:
        """Kills the machine's first process, and with it all others; then what was made outside."""
        for pid in (self.leader, self._process.pid if self._process else 0):
            if pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if pid == self.leader and self._process:
                try:
                    self._process.wait(30)  # nspawn takes its own things away when its container has ended
                    break
                except subprocess.TimeoutExpired:
                    pass
        if self._process:
            self._process.wait(30)
        for cgroup in self._cgroups:
            _remove_cgroup(cgroup)
        self._cgroups = []

    def command(self, command: str) -> list[str]:
        return ["nsenter", "--target", str(self.leader), "--all", "--", "/bin/sh", "-c", command]

    def run(self, command: str, check: bool = True, text: str | None = None, timeout: float = 60):
        """Runs a shell command inside. With `check`, a failure shows all that it said."""
        done = subprocess.run(self.command(command), input=text, stdin=None if text is not None else subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}\nexit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, command: str) -> str:
        return self.run(command).stdout.strip()

    def start(self, command: str) -> subprocess.Popen:
        return subprocess.Popen(self.command(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def write(self, path: str, text: str, mode: str = "644") -> None:
        quoted = shlex.quote(path)
        self.run(f"mkdir -p $(dirname {quoted}) && cat > {quoted} && chmod {mode} {quoted}", text=text)

    def show(self, unit: str, name: str) -> str:
        return self.out(f"systemctl show --value -p {name} {unit}")

    def until_said(self, cursor: str, unit: str, text: str) -> None:
        """Waits for a line of a unit in the journal."""
        self.until(f"{unit} to say {text!r}", lambda: any(
            entry["MESSAGE"] == text for entry in self.journal(cursor, f"_SYSTEMD_UNIT={unit}")))

    def until(self, what: str, condition, timeout: float = 25):
        """What the condition returns once it is true; asks again until then, and fails with the words of `what`. The
        time is less than HoldSec=30 of the examples, whose end must not be taken for what was to come at once."""
        end = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < end, f"waited {timeout} s in vain: {what}"
            time.sleep(0.02)

    def cursor(self) -> str:
        """The journal's end at this moment."""
        self.run("journalctl --sync")
        return self.out("journalctl -n 0 --show-cursor -q | sed -n 's/^-- cursor: //p'")

    def entries(self, cursor: str, *matches: str, least: int = 1) -> list[dict]:
        """As journal(), once there are so many: the broker writes its entries a moment after it has answered."""
        found = []

        def enough() -> bool:
            found[:] = self.journal(cursor, *matches)
            return len(found) >= least
        self.until(f"{least} entries with {' '.join(matches)}", enough)
        return found

    def journal(self, cursor: str, *matches: str) -> list[dict]:
        """All entries after the cursor that match FIELD=VALUE. journalctl 252 loses the first match after a cursor that
        does not match itself, so it is not asked to match."""
        self.run("journalctl --sync")
        lines = self.out(f"journalctl -q -o json --after-cursor={shlex.quote(cursor)}").splitlines()
        wanted = [match.split("=", 1) for match in matches]
        return [entry for entry in map(json.loads, lines) if all(entry.get(key) == value for key, value in wanted)]
