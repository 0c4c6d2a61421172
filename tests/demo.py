# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S1 of the talk before one's eyes; started by ./demo. Uses the services and clients of the tests.

Everything happens in new network, mount and process namespaces, which take routes, sockets, pins, files and processes
with them, also when the demo is interrupted or killed.
"""

import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import broker, client, kernel, namespace, talk  # noqa: E402

ROW = "{:<7} {:<5} {:<30} {:>4}  {:<10} {:<10} {:<30} {:>5}  {}"


def ask(ask_from, protocol, address, port):
    try:
        return ask_from(protocol, address, port), ""
    except OSError as error:
        return None, str(error)


def show(ask_from, client_name, questions):
    """Asks and prints one line each; returns how many were answered otherwise than they should."""
    wrong = 0
    for protocol, address, port, expected in questions:
        answer, trouble = ask(ask_from, protocol, address, port)
        good = answer is not None and answer.name == expected and answer.source == answer.local == (address, port)
        wrong += not good
        name, source = (answer.name, answer.source) if answer else ("-", ("-", "-"))
        print(ROW.format(client_name, protocol, address, port, expected, name, *source,
                         "ok" if good else f"WRONG {trouble}"))
    return wrong


def inside():
    """In the new namespaces, as their first process."""
    kernel.mount("proc", "/proc", "proc")
    namespace.enter()
    namespace.add_local_routes(*talk.PREFIXES)
    began = time.monotonic()
    daemon = broker.Broker().policy(talk.POLICY, "50-demo.conf").start()
    services = talk.start_services()
    print(f"\nsockbrokerd serves {len(talk.PREFIXES)} prefixes for {len(services)} services:\n")
    for one in services:
        uids, _, _, capabilities = one.capabilities()
        bound = ", ".join(line["protocol"] + " " + line["bound"] for line in daemon.list() if line["pid"] == one.pid)
        print(f"  {one.service_name():<10} uid {uids[0]}, CapEff {capabilities['CapEff']}, its sockets: {bound}")

    print()
    print(ROW.format("client", "", "asked address", "port", "expected", "answered", "answer came from", "port", ""))
    remote = namespace.remote_host()
    wrong = show(remote.ask, "remote", talk.QUESTIONS)
    wrong += show(client.ask, "local", talk.QUESTIONS[::4])
    if wrong:
        print(f"\n{wrong} answers are WRONG; sockbrokerd said:\n{daemon.log()}")
    else:
        print(f"\nall as it should be, in {time.monotonic() - began:.1f} s")
    sys.stdout.flush()
    daemon.stop()
    os._exit(1 if wrong else 0)


def main():
    kernel.unshare(kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        inside()

    def stop(number, _):
        os.kill(child, signal.SIGKILL)  # the first of its namespace: all others there end with it
        os.waitpid(child, 0)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
