// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/peer/senders.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "broker/base/owned_fd.h"
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
        const OwnedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0)));
        const Incarnation* const sender = pidfd ? known(peer.pid, pidfd.get()) : nullptr;
        const auto info = sender != nullptr ? info_of(pidfd.get()) : std::nullopt;
        if (!info) {
                return std::nullopt;
        }
        if (info->ruid != peer.uid || !older_than(*sender, sent_usec)) {
                return "";
        }
        return unit_in(info->cgroup, pidfd.get(), peer.pid);
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

// What is known of the process of the pidfd. No descriptor is kept.
const Incarnation* Senders::known(pid_t pid, int pidfd) {
        struct stat facts {};
        if (fstat(pidfd, &facts) != 0) {
                return nullptr;
        }
        auto found = std::ranges::find(known_, facts.st_ino, &Known::inode);
        if (found == known_.end()) {
                const OwnedFd process(open(fmt::format("/proc/{}", pid).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
                const auto read = process ? read_incarnation(process.get()) : std::nullopt;
                // Still there: so what was read was of the process of the pidfd.
                if (!read || !info_of(pidfd)) {
                        return nullptr;
                }
                found = std::ranges::min_element(known_, {}, &Known::asked);
                *found = {.inode = facts.st_ino, .process = *read};
        }
        found->asked = ++asked_;
        return &found->process;
}

}  // namespace sockbroker
