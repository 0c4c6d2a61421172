// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/peer/senders.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "broker/peer/proc.h"

namespace sockbroker {

namespace {

// linux/pidfd.h from 6.13.
struct PidfdInfo {
        std::uint64_t mask = 0;
        std::uint64_t cgroup = 0;
        std::uint32_t pid = 0;
        std::uint32_t tgid = 0;
        std::uint32_t ppid = 0;
        std::uint32_t ruid = 0;
        std::uint32_t other_ids[7] = {};
        std::uint32_t spare = 0;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr std::uint64_t kInfoPid = 1;
constexpr std::uint64_t kInfoCredentials = 2;
constexpr std::uint64_t kInfoCgroup = 4;
constexpr std::uint64_t kInfoAll = kInfoPid | kInfoCredentials | kInfoCgroup;
constexpr unsigned long kPidfdGetInfo = _IOWR(0xff, 11, PidfdInfo);

// Only of a process that was not reaped yet, so its pid is nobody else's.
std::optional<PidfdInfo> info_of(int pidfd) {
        PidfdInfo info{.mask = kInfoAll};
        if (ioctl(pidfd, kPidfdGetInfo, &info) != 0 || (info.mask & kInfoAll) != kInfoAll) {
                return std::nullopt;
        }
        return info;
}

// The cgroup of that answer is the one in the hierarchy that systemd has its units in: also where the others are of the
// old kind.
bool systemd_has_cgroup2() {
        for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
                if (struct statfs facts{}; statfs(path, &facts) == 0 && facts.f_type == CGROUP2_SUPER_MAGIC) {
                        return true;
                }
        }
        return false;
}

}  // namespace

Senders::Senders() {
        const OwnedFd self(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0)));
        usable_ = self && info_of(self.get()) && systemd_has_cgroup2();
}

std::expected<Peer, Refusal> Senders::identify(const Message& message) {
        auto peer = credentials_of(message);
        if (!usable_ || !peer || message.sender_gone) {
                return sockbroker::identify(message);
        }
        auto unit = message.pidfd ? unit_by_pidfd(message.pidfd.get(), *peer) : unit_by_age(*peer, message.sent_usec);
        if (!unit) {
                return sockbroker::identify(message);
        }
        peer->unit = std::move(*unit);
        return peer;
}

std::optional<std::string> Senders::unit_by_pidfd(int pidfd, const Peer& peer) {
        const auto info = info_of(pidfd);
        if (!info || info->tgid != static_cast<std::uint32_t>(peer.pid)) {
                return std::nullopt;
        }
        return unit_in(info->cgroup, pidfd, peer.pid);
}

std::optional<std::string> Senders::unit_by_age(const Peer& peer, std::int64_t sent_usec) {
        const Known* const sender = known(peer.pid);
        if (sender == nullptr) {
                return std::nullopt;
        }
        const auto info = info_of(sender->pidfd.get());
        if (!info) {
                return std::nullopt;
        }
        if (info->ruid != peer.uid || !older_than(sender->process, sent_usec)) {
                return "";
        }
        return unit_in(info->cgroup, sender->pidfd.get(), peer.pid);
}

// The process is in the cgroup before its unit is read and after it.
std::optional<std::string> Senders::unit_in(std::uint64_t cgroup, int pidfd, pid_t pid) {
        if (const auto found = units_.find(cgroup); found != units_.end()) {
                return found->second;
        }
        const auto unit = look_up_unit(pid);
        const auto after = info_of(pidfd);
        if (!after || after->cgroup != cgroup || (!unit && unit.error() != ENODATA)) {
                return std::nullopt;
        }
        if (units_.size() >= kMaxUnits) {
                units_.clear();
        }
        return units_.emplace(cgroup, unit.value_or("")).first->second;
}

// Of the process that has this pid now.
Senders::Known* Senders::known(pid_t pid) {
        auto found = std::ranges::find(known_, pid, &Known::pid);
        if (found != known_.end() && !info_of(found->pidfd.get())) {
                *found = {};  // gone, and another process may have its number
                found = known_.end();
        }
        if (found == known_.end()) {
                Known made{.pid = pid, .pidfd = OwnedFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)))};
                const OwnedFd process(open(fmt::format("/proc/{}", pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
                const auto read = process ? read_incarnation(process.get()) : std::nullopt;
                // Still there: so what was read was of the process of the pidfd.
                if (!made.pidfd || !read || !info_of(made.pidfd.get())) {
                        return nullptr;
                }
                made.process = *read;
                found = std::ranges::min_element(known_, {}, &Known::asked);
                *found = std::move(made);
        }
        found->asked = ++asked_;
        return &*found;
}

}  // namespace sockbroker
