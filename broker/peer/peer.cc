// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From the kernel's credentials to a Peer. A pid is only a number: it may belong to another process by the time it
// is looked up, so a unit is trusted only if the process is shown to be the sender still. Never reads anything that the
// peer could have written, and never fails for want of a unit: such a peer simply has none.
#include "broker/peer/peer.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/base/owned_fd.h"
#include "broker/peer/incarnation.h"
#include "broker/peer/proc.h"

namespace sockbroker {
namespace {

uid_t overflow_uid() {
        static const uid_t value = [] {
                auto text = read_small(AT_FDCWD, "/proc/sys/kernel/overflowuid").value_or("");
                while (text.ends_with('\n')) {
                        text.pop_back();
                }
                return static_cast<uid_t>(parse_number(text, UINT32_MAX).value_or(65534));
        }();
        return value;
}

std::string unit_by_pidfd(const Message& message, pid_t pid) {
        auto unit = unit_of(pid);
        return still_there(message.pidfd.get()) ? unit : std::string{};
}

// Kernels before 6.5. An open /proc/PID stays with its process: once that is gone, reads fail for ever.
std::string unit_by_age(const Message& message, pid_t pid, uid_t uid) {
        const OwnedFd process(open(fmt::format("/proc/{}", pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!process) {
                return {};
        }
        const auto before = read_incarnation(process.get());
        if (!before || before->uid != uid || !older_than(*before, message.sent_usec)) {
                return {};
        }
        auto unit = unit_of(pid);
        return read_incarnation(process.get()) == before ? unit : std::string{};
}

std::unexpected<Refusal> refuse(std::string message) {
        return std::unexpected(Refusal{ResultCode::kNotPermitted, std::move(message), {}});
}

}  // namespace

std::string Peer::to_string() const {
        return unit.empty() ? fmt::format("pid {}, uid {}, no unit", pid, uid)
                            : fmt::format("pid {}, uid {}, unit {}", pid, uid, unit);
}

Process open_process(pid_t pid, std::int64_t registered_usec) {
        OwnedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
        if (!pidfd) {
                return {.pidfd = {}, .ended = errno == ESRCH || errno == EINVAL};  // the latter: now of a thread
        }
        const OwnedFd process(open(fmt::format("/proc/{}", pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const auto incarnation = process ? read_incarnation(process.get()) : std::nullopt;
        if (!incarnation) {
                const bool there = still_there(pidfd.get());
                return {.pidfd = {}, .ended = !there};
        }
        // Starts are counted with the time that the machine was suspended, registrations without.
        const std::int64_t registered = registered_usec + suspended_usec();
        // Still there: so what was read was of the process of the pidfd.
        if (start_usec(*incarnation) > registered || !still_there(pidfd.get())) {
                return {.pidfd = {}, .ended = true};
        }
        return {.pidfd = std::move(pidfd), .ended = false};
}

std::expected<Peer, Refusal> credentials_of(const Message& message) {
        if (!message.credentials) {
                return refuse(
                        "the message came without credentials of its sender, so nobody knows who asks; the socket it "
                        "was "
                        "sent to needs SO_PASSCRED (PassCredentials=yes in its unit)");
        }
        const ucred& sender = *message.credentials;
        if (sender.pid <= 0) {
                return refuse(
                        "the sender has no pid here: it runs outside the broker's pid namespace, or sent before the "
                        "socket asked for credentials (PassCredentials=yes in its unit)");
        }
        if (sender.uid == overflow_uid()) {
                return refuse(fmt::format(
                        "uid {} stands for every user unknown in the broker's user namespace and identifies "
                        "nobody; run the service under a uid of its own",
                        sender.uid));
        }
        return Peer{.pid = sender.pid, .uid = sender.uid, .gid = sender.gid, .unit = {}};
}

std::expected<Peer, Refusal> identify(const Message& message) {
        auto peer = credentials_of(message);
        if (peer && !message.sender_gone) {
                peer->unit =
                        message.pidfd ? unit_by_pidfd(message, peer->pid) : unit_by_age(message, peer->pid, peer->uid);
        }
        return peer;
}

}  // namespace sockbroker
