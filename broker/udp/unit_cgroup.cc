// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/udp/unit_cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <systemd/sd-login.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include <fmt/format.h>

namespace sockbroker {

namespace {

// Where the one hierarchy is mounted that BPF knows, also beside others.
constexpr std::array<const char*, 2> kRoots{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

std::optional<std::string> cgroup_of(pid_t pid) {
        char* raw = nullptr;
        if (pid <= 0 || sd_pid_get_cgroup(pid, &raw) < 0) {
                return std::nullopt;
        }
        const std::unique_ptr<char, decltype(&std::free)> path(raw, &std::free);
        return path.get();
}

// To attach a program one needs no right to read it.
Result<UnitCgroup> open_at(const std::string& path) {
        int error = ENOENT;
        for (const char* root : kRoots) {
                struct statfs fs {};
                struct stat status {};
                OwnedFd directory(open((root + path).c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
                if (!directory) {
                        error = errno;
                        continue;
                }
                if (fstatfs(directory.get(), &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC &&
                    fstat(directory.get(), &status) == 0) {
                        return UnitCgroup{.directory = std::move(directory), .id = status.st_ino};
                }
        }
        return fail(error, fmt::format("cannot open the cgroup {}; it must be mounted below /sys/fs/cgroup", path));
}

}  // namespace

std::optional<std::string> unit_path(std::string_view path, std::string_view unit) {
        if (!path.starts_with('/') || unit.empty()) {
                return std::nullopt;
        }
        std::size_t begin = 1;
        while (begin < path.size()) {
                const auto end = std::min(path.find('/', begin), path.size());
                auto name = path.substr(begin, end - begin);
                if (!name.ends_with(".slice")) {
                        if (name.starts_with('_')) {  // what the kernel could take for a file of its own
                                name.remove_prefix(1);
                        }
                        return name == unit ? std::optional<std::string>(path.substr(0, end)) : std::nullopt;
                }
                begin = end + 1;
        }
        return std::nullopt;
}

Result<UnitCgroup> open_unit_cgroup(const std::string& unit, pid_t pid) {
        if (const auto path = cgroup_of(pid)) {
                if (const auto of_unit = unit_path(*path, unit)) {
                        return open_at(*of_unit);
                }
        }
        if (unit.empty() || unit.find('/') != std::string::npos) {
                return fail(EINVAL, "no unit");
        }
        return open_at("/system.slice/" + unit);
}

}  // namespace sockbroker
