// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From the kernel's credentials to a Peer. A pid is only a number: it may belong to another process by the time it
// is looked up, so a unit is trusted only if the process is shown to be the sender still. Never reads anything that the
// peer could have written, and never fails for want of a unit: such a peer simply has none.
#include "broker/peer/peer.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <optional>

#include <fmt/format.h>

#include "broker/base/net.h"
#include "broker/base/owned_fd.h"
#include "broker/peer/proc.h"

namespace sockbroker {
namespace {

constexpr std::int64_t kUsecPerSec = 1'000'000;

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

// What tells one process of a number from its successor.
struct Incarnation {
        std::uint64_t start_ticks = 0;  // since boot
        uid_t uid = 0;

        bool operator==(const Incarnation&) const = default;
};

std::optional<Incarnation> read_incarnation(int process) {
        const auto stat = read_small(process, "stat");
        const auto status = read_small(process, "status");
        if (!stat || !status) {
                return std::nullopt;
        }
        // proc(5): the name stands in parentheses and may hold anything; starttime is field 22, the state field 3.
        const auto name_end = stat->rfind(')');
        const auto uids = status->find("\nUid:");
        if (name_end == std::string::npos || uids == std::string::npos) {
                return std::nullopt;
        }
        const auto start = parse_number(word(std::string_view(*stat).substr(name_end + 1), 22 - 3), UINT64_MAX);
        const auto uid = parse_number(word(std::string_view(*status).substr(uids + 5), 0), UINT32_MAX);
        if (!start || !uid) {
                return std::nullopt;
        }
        return Incarnation{*start, static_cast<uid_t>(*uid)};
}

std::int64_t now_usec(clockid_t clock) {
        timespec now{};
        clock_gettime(clock, &now);
        return now.tv_sec * kUsecPerSec + now.tv_nsec / 1000;
}

// CLOCK_BOOTTIME, rounded down to ticks (10 ms).
std::int64_t start_usec(const Incarnation& process) {
        const std::int64_t ticks_per_sec = sysconf(_SC_CLK_TCK);
        const auto ticks = static_cast<std::int64_t>(process.start_ticks);
        return ticks / ticks_per_sec * kUsecPerSec + ticks % ticks_per_sec * kUsecPerSec / ticks_per_sec;
}

// Whether a process of this start existed at `sent_usec`. A message from the future means that the clock was set
// back since, and nothing can be said; one of unknown time (0) is before every start. Ticks are rounded down, so that a
// process which starts and sends within one tick (10 ms) is believed; the whole pid space would have to be used up in
// that time to abuse it.
bool older_than(const Incarnation& process, std::int64_t sent_usec) {
        const std::int64_t real = now_usec(CLOCK_REALTIME);
        const std::int64_t boot = now_usec(CLOCK_BOOTTIME);
        const std::int64_t start = real - boot + start_usec(process);
        return start <= sent_usec && sent_usec <= real;
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
        const std::int64_t registered = registered_usec + now_usec(CLOCK_BOOTTIME) - now_usec(CLOCK_MONOTONIC);
        // Still there: so what was read was of the process of the pidfd.
        if (start_usec(*incarnation) > registered || !still_there(pidfd.get())) {
                return {.pidfd = {}, .ended = true};
        }
        return {.pidfd = std::move(pidfd), .ended = false};
}

std::expected<Peer, Refusal> identify(const Message& message) {
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
        Peer peer{.pid = sender.pid, .uid = sender.uid, .gid = sender.gid, .unit = {}};
        if (message.sender_gone) {
                return peer;
        }
        peer.unit = message.pidfd ? unit_by_pidfd(message, sender.pid) : unit_by_age(message, sender.pid, sender.uid);
        return peer;
}

}  // namespace sockbroker
