# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-exporter as systemd would start it, with a listening socket, for a broker of a test."""

import contextlib
import socket
import subprocess
import urllib.request

from . import broker as broker_module


@contextlib.contextmanager
def started(broker):
    """Its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        script = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        process = subprocess.Popen(["bash", "-c", script, "-", broker_module.BUILD / "sockbroker-exporter",
                                    "--runtime-dir", broker.runtime, "--bpffs", broker.bpffs],
                                   pass_fds=[listener.fileno()])
    try:
        yield url
    finally:
        process.terminate()
        status = process.wait(25)
    assert status == 0


def scrape(url, accept=None):
    """The type and the text of what it says."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()
