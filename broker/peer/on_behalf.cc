// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/peer/on_behalf.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/peer/proc.h"

namespace sockbroker {

namespace {

std::unexpected<Refusal> refuse(pid_t pid, const std::string& why) {
        return std::unexpected(
                Refusal{ResultCode::kNotPermitted, fmt::format("PID={} is not believed: {}", pid, why), {}});
}

// The first number of a line of /proc/PID/status, the real id.
std::optional<std::uint32_t> real_id(std::string_view status, std::string_view key) {
        const auto at = status.find(key);
        if (at == std::string_view::npos) {
                return std::nullopt;
        }
        const auto number = parse_number(word(status.substr(at + key.size()), 0), UINT32_MAX);
        return number ? std::optional(static_cast<std::uint32_t>(*number)) : std::nullopt;
}

}  // namespace

std::expected<Peer, Refusal> on_behalf_of(const Peer& sender, pid_t pid) {
        if (pid == sender.pid) {
                return sender;
        }
        const OwnedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
        if (!pidfd) {
                return refuse(pid, "there is no such process here; a pid is one of the broker's pid namespace");
        }
        const OwnedFd process(open(fmt::format("/proc/{}", pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const auto status = process ? read_small(process.get(), "status") : std::nullopt;
        const auto uid = status ? real_id(*status, "\nUid:") : std::nullopt;
        const auto gid = status ? real_id(*status, "\nGid:") : std::nullopt;
        auto unit = unit_of(pid);
        // Still there: so what was read is of the process of the pidfd.
        if (!uid || !gid || !still_there(pidfd.get())) {
                return refuse(pid, "it is gone, or hidden from the broker");
        }
        Peer peer{.pid = pid, .uid = *uid, .gid = *gid, .unit = std::move(unit)};
        if (peer.unit != sender.unit) {
                return refuse(pid, fmt::format("it runs in {}, the sender in {}",
                                               peer.unit.empty() ? "no system unit" : peer.unit,
                                               sender.unit.empty() ? "no system unit" : sender.unit));
        }
        if (sender.uid != 0 && (peer.uid != sender.uid || peer.gid != sender.gid)) {
                return refuse(pid, fmt::format("it has uid {} and gid {}, the sender uid {} and gid {}", peer.uid,
                                               peer.gid, sender.uid, sender.gid));
        }
        return peer;
}

OwnedFd process_of(const Message& message, const Peer& peer) {
        if (message.credentials && message.credentials->pid == peer.pid) {
                return message.pidfd ? OwnedFd(fcntl(message.pidfd.get(), F_DUPFD_CLOEXEC, 3)) : OwnedFd();
        }
        return OwnedFd(static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0)));
}

}  // namespace sockbroker
