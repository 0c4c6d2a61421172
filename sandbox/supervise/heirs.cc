// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/heirs.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "broker/base/net.h"

namespace sockbroker::supervise {

namespace {

// What one call looks at, and what it finds, at most: meanwhile no bind of the program is answered.
constexpr unsigned kMostLooks = 100'000;
constexpr std::size_t kMostAtOnce = 256;

using Folder = std::unique_ptr<DIR, int (*)(DIR*)>;

Folder open_folder(const std::string& path) {
        return {::opendir(path.c_str()), ::closedir};
}

// There is something, and it cannot be opened now.
bool is_short(int errnum) {
        return errnum == EMFILE || errnum == ENFILE || errnum == ENOMEM;
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

// Of /proc/PID/fdinfo: the line "ino:", of kernel 5.14. 0: unknown.
std::uint64_t inode_of_info(int folder, const char* name) {
        constexpr std::string_view kKey = "\nino:\t";
        const OwnedFd fd(::openat(folder, name, O_RDONLY | O_CLOEXEC));
        std::array<char, 512> text{};
        const ssize_t size = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
        const std::string_view all(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
        const auto at = all.find(kKey);
        const auto value = at == std::string_view::npos ? std::string_view() : all.substr(at + kKey.size());
        return parse_number(value.substr(0, value.find('\n')), UINT64_MAX).value_or(0);
}

// The descriptors of a process. /proc/PID/fd of one that is undumpable is root's alone; who may look into it otherwise,
// as the supervisor with --user-namespace=yes, may read fdinfo, and pidfd_getfd(2) works.
class Descriptors {
public:
        explicit Descriptors(pid_t pid) : pid_(pid), folder_(open_folder(fmt::format("/proc/{}/fd", pid))) {
                if (!folder_ && (errno == EACCES || errno == EPERM)) {
                        by_info_ = true;
                        folder_ = open_folder(fmt::format("/proc/{}/fdinfo", pid));
                }
        }

        [[nodiscard]] DIR* folder() const { return folder_.get(); }
        [[nodiscard]] unsigned price() const { return by_info_ ? 3 : 1; }  // in system calls

        // 0: it is no socket, or none of those that are sought.
        template <typename Sought>
        [[nodiscard]] std::uint64_t inode(const char* name, const Sought& sought) const {
                const int folder = ::dirfd(folder_.get());
                if (folder < 0) {
                        return 0;
                }
                if (!by_info_) {
                        return inode_of_link(folder, name);
                }
                const std::uint64_t inode = inode_of_info(folder, name);
                // Files of other file systems have inodes too. A copy is made where it may be one of ours alone: the
                // close of one can wait for a server.
                return sought.contains(inode) && is_socket(name, inode) ? inode : 0;
        }

private:
        [[nodiscard]] bool is_socket(const char* name, std::uint64_t inode) const {
                const auto number = static_cast<int>(parse_number(name, INT32_MAX).value_or(-1));
                const OwnedFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
                const OwnedFd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
                struct stat status {};
                return copy && ::fstat(copy.get(), &status) == 0 && S_ISSOCK(status.st_mode) && status.st_ino == inode;
        }

        pid_t pid_;
        bool by_info_ = false;
        Folder folder_;
};

}  // namespace

void Heirs::watch(pid_t pid, std::uint64_t cookie, int fd) {
        forget(cookie);
        struct stat status {};
        if (::fstat(fd, &status) != 0) {
                return;
        }
        const bool known = processes_.contains(pid);
        OwnedFd pidfd(known ? -1 : static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
        const bool ended = !known && !pidfd && errno == ESRCH;
        if (!known && !pidfd && !ended) {
                return;
        }
        make_room();
        if (pidfd) {
                processes_.emplace(pid, std::move(pidfd));
        }
        (ended ? orphans_ : watched_).push_back({.cookie = cookie, .inode = status.st_ino, .pid = pid});
}

// For one more of each.
void Heirs::make_room() {
        if (watched_.size() + orphans_.size() >= capacity_) {
                auto& from = watched_.empty() ? orphans_ : watched_;
                from.erase(from.begin());
        }
        if (processes_.size() < kMostProcesses) {
                return;
        }
        std::set<pid_t> with_sockets;
        for (const Watched& one : watched_) {
                with_sockets.insert(one.pid);
        }
        std::erase_if(processes_, [&](const auto& process) { return !with_sockets.contains(process.first); });
        if (processes_.size() >= kMostProcesses) {
                const pid_t oldest = watched_.front().pid;
                std::erase_if(watched_, [&](const Watched& one) { return one.pid == oldest; });
                processes_.erase(oldest);
        }
}

void Heirs::forget(std::uint64_t cookie) {
        const auto is_it = [&](const Watched& one) { return one.cookie == cookie; };
        std::erase_if(watched_, is_it);
        std::erase_if(orphans_, is_it);
}

void Heirs::add_to(std::vector<pollfd>& entries) const {
        for (const auto& [pid, pidfd] : processes_) {
                entries.push_back({.fd = pidfd.get(), .events = POLLIN, .revents = 0});
        }
}

void Heirs::note_ended() {
        std::vector<pollfd> entries;
        add_to(entries);
        if (entries.empty() || ::poll(entries.data(), entries.size(), 0) <= 0) {
                return;
        }
        std::set<pid_t> ended;
        auto entry = entries.begin();
        for (const auto& [pid, pidfd] : processes_) {
                if ((entry++)->revents != 0) {
                        ended.insert(pid);
                }
        }
        const auto gone =
                std::ranges::stable_partition(watched_, [&](const Watched& one) { return !ended.contains(one.pid); });
        orphans_.insert(orphans_.end(), gone.begin(), gone.end());
        watched_.erase(gone.begin(), gone.end());
        std::erase_if(processes_, [&](const auto& process) { return ended.contains(process.first); });
}

std::vector<Heirs::Heir> Heirs::find() {
        if (!std::exchange(searches_, true)) {
                next_ = {};
                for (Watched& one : orphans_) {
                        one.sought = true;
                }
        }
        std::unordered_map<std::uint64_t, Watched*> sought;  // by inode
        for (Watched& one : orphans_) {
                if (one.sought) {
                        sought.emplace(one.inode, &one);
                }
        }
        std::vector<Heir> heirs;
        unsigned looked_at = 0;
        const Folder processes = open_folder("/proc");
        if (!processes) {
                return heirs;
        }
        while (const dirent* const process = sought.empty() ? nullptr : ::readdir(processes.get())) {
                const auto pid = static_cast<pid_t>(parse_number(process->d_name, INT32_MAX).value_or(0));
                if (pid == 0 || pid < next_.pid || pid == ::getpid()) {
                        continue;
                }
                const Descriptors descriptors(pid);
                if (descriptors.folder() == nullptr && is_short(errno)) {
                        next_ = {.pid = pid, .number = 0};
                        return heirs;
                }
                DIR* const folder = descriptors.folder();
                while (const dirent* const one = folder != nullptr ? ::readdir(folder) : nullptr) {
                        const auto name = parse_number(one->d_name, INT32_MAX);
                        const auto number = static_cast<int>(name.value_or(0));
                        if (!name || (pid == next_.pid && number < next_.number)) {
                                continue;
                        }
                        if (looked_at >= kMostLooks || heirs.size() == kMostAtOnce) {
                                next_ = {.pid = pid, .number = number};
                                return heirs;
                        }
                        looked_at += descriptors.price();
                        const auto found = sought.find(descriptors.inode(one->d_name, sought));
                        if (found != sought.end()) {
                                heirs.push_back({.cookie = found->second->cookie, .pid = pid, .number = number});
                                found->second->sought = false;
                                sought.erase(found);
                        }
                }
        }
        searches_ = false;
        std::erase_if(orphans_, [](const Watched& one) { return one.sought; });
        return heirs;
}

}  // namespace sockbroker::supervise
