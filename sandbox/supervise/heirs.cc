// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/heirs.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "broker/base/net.h"

namespace sockbroker::supervise {

namespace {

constexpr std::size_t kMostWatched = 64;
// What one search looks at, at most.
constexpr unsigned kMostDescriptors = 100'000;

using Folder = std::unique_ptr<DIR, int (*)(DIR*)>;

Folder open_folder(const std::string& path) {
        return {::opendir(path.c_str()), ::closedir};
}

// Of the links of /proc/PID/fd; 0: no socket.
std::uint64_t inode_of_link(int folder, const char* name) {
        constexpr std::string_view kPrefix = "socket:[";
        std::array<char, 64> text{};
        const ssize_t size = ::readlinkat(folder, name, text.data(), text.size());
        const std::string_view link(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
        if (!link.starts_with(kPrefix) || !link.ends_with(']')) {
                return 0;
        }
        return parse_number(link.substr(kPrefix.size(), link.size() - kPrefix.size() - 1), UINT64_MAX).value_or(0);
}

}  // namespace

void Heirs::watch(pid_t pid, std::uint64_t cookie, int fd) {
        struct stat status {};
        OwnedFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
        if (!pidfd || ::fstat(fd, &status) != 0) {
                return;
        }
        std::erase_if(watched_, [&](const Watched& one) { return one.cookie == cookie; });
        if (watched_.size() >= kMostWatched) {
                watched_.erase(watched_.begin());
        }
        watched_.push_back({.cookie = cookie, .inode = status.st_ino, .pidfd = std::move(pidfd)});
}

void Heirs::add_to(std::vector<pollfd>& entries) const {
        for (const Watched& one : watched_) {
                if (one.pidfd) {
                        entries.push_back({.fd = one.pidfd.get(), .events = POLLIN, .revents = 0});
                }
        }
}

bool Heirs::note_ended() {
        for (Watched& one : watched_) {
                pollfd entry{.fd = one.pidfd.get(), .events = POLLIN, .revents = 0};
                if (one.pidfd && ::poll(&entry, 1, 0) == 1) {
                        one.pidfd.reset();
                }
        }
        return std::ranges::any_of(watched_, [](const Watched& one) { return !one.pidfd; });
}

void Heirs::find(const Found& found) {
        std::vector<Watched> wanted;
        for (Watched& one : watched_) {
                if (!one.pidfd) {
                        wanted.push_back(std::move(one));
                }
        }
        std::erase_if(watched_, [](const Watched& one) { return !one.pidfd; });
        const Folder processes = open_folder("/proc");
        unsigned looked_at = 0;
        while (const dirent* const process = processes ? ::readdir(processes.get()) : nullptr) {
                const auto pid = parse_number(process->d_name, INT32_MAX);
                if (!pid || wanted.empty() || static_cast<pid_t>(*pid) == ::getpid()) {
                        continue;
                }
                const Folder descriptors = open_folder(fmt::format("/proc/{}/fd", *pid));
                while (const dirent* const one = descriptors ? ::readdir(descriptors.get()) : nullptr) {
                        const auto inode = inode_of_link(::dirfd(descriptors.get()), one->d_name);
                        const auto heir = std::ranges::find(wanted, inode, &Watched::inode);
                        if (inode != 0 && heir != wanted.end()) {
                                const auto cookie = heir->cookie;
                                wanted.erase(heir);
                                found(cookie, static_cast<pid_t>(*pid), std::atoi(one->d_name));  // NOLINT: digits
                        }
                        if (++looked_at > kMostDescriptors) {
                                return;
                        }
                }
        }
}

}  // namespace sockbroker::supervise
