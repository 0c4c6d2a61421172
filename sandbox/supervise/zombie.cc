// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/zombie.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "broker/base/net.h"

namespace sockbroker::supervise {

namespace {

constexpr auto kBetweenLooks = std::chrono::seconds(1);

struct Process {
        bool ended = false;
        std::uint64_t began = 0;  // ticks since the boot
};

std::string read_file(const std::string& path) {
        const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        std::array<char, 4096> text{};
        const ssize_t size = fd ? ::read(fd.get(), text.data(), text.size()) : -1;
        return {text.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

// /proc/PID/stat, proc_pid_stat(5). None: there is no such process.
std::optional<Process> read_stat(const std::string& pid) {
        constexpr unsigned kBegan = 22 - 3;  // fields after the state, the third
        const auto text = read_file(fmt::format("/proc/{}/stat", pid));
        const auto name_ends = text.rfind(") ");
        if (name_ends == std::string::npos || name_ends + 2 >= text.size()) {
                return std::nullopt;
        }
        std::string_view rest = std::string_view(text).substr(name_ends + 2);
        Process process{.ended = rest.front() == 'Z' || rest.front() == 'X'};
        for (unsigned field = 0; field < kBegan; field++) {
                rest.remove_prefix(std::min(rest.size(), rest.find(' ')));
                rest.remove_prefix(std::min<std::size_t>(rest.size(), 1));
        }
        process.began = parse_number(rest.substr(0, rest.find(' ')), UINT64_MAX).value_or(0);
        return process;
}

std::string read_status(const std::string& pid) {
        return read_file(fmt::format("/proc/{}/status", pid));
}

// "\nUid:\t1000\t", with the real one.
std::string uid_of(const std::string& status) {
        constexpr std::string_view kKey = "\nUid:\t";
        const auto at = status.find(kKey);
        const auto end = at == std::string::npos ? at : status.find('\t', at + kKey.size());
        return end == std::string::npos ? "" : status.substr(at, end + 1 - at);
}

bool is_supervisor(const std::string& pid) {
        return read_file(fmt::format("/proc/{}/comm", pid)) == "sockbroker-sup\n";
}

}  // namespace

bool anybody_lives() {
        const auto own = read_stat("self");
        const auto uid = uid_of(read_status("self"));
        const std::unique_ptr<DIR, int (*)(DIR*)> processes(::opendir("/proc"), ::closedir);
        if (!own || uid.empty() || !processes) {
                return true;
        }
        while (const dirent* const entry = ::readdir(processes.get())) {  // NOLINT: there is one thread
                const std::string pid(entry->d_name);
                if (!parse_number(pid, INT32_MAX)) {
                        continue;
                }
                const auto process = read_stat(pid);
                if (!process || process->ended || process->began < own->began || is_supervisor(pid)) {
                        continue;
                }
                if (const auto status = read_status(pid); status.contains(uid) && status.contains("\nSeccomp:\t2\n")) {
                        return true;
                }
        }
        return false;
}

Zombie::Zombie(pid_t program) : pid_(program), pidfd_(static_cast<int>(::syscall(SYS_pidfd_open, program, 0))) {}

void Zombie::add_to(std::vector<pollfd>& entries) const {
        if (pidfd_) {
                entries.push_back({.fd = pidfd_.get(), .events = POLLIN, .revents = 0});
        }
}

bool Zombie::is_alone() {
        const auto now = std::chrono::steady_clock::now();
        if (pidfd_) {
                pollfd entry{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
                if (::poll(&entry, 1, 0) != 1) {
                        return false;
                }
                pidfd_.reset();
                next_ = now;
        }
        if (now < next_) {
                return false;
        }
        const auto process = read_stat(std::to_string(pid_));
        if (!process || !process->ended) {
                next_ = Time::max();  // somebody has waited for it: the kernel says when the last one ends
                return false;
        }
        next_ = now + kBetweenLooks;
        return !anybody_lives();
}

}  // namespace sockbroker::supervise
