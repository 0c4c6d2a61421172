// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/landlock.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include <fmt/format.h>

#include "broker/base/owned_fd.h"

namespace sockbroker {

namespace {

// struct landlock_ruleset_attr as far as it is used here.
struct Ruleset {
        std::uint64_t files = 0;
        std::uint64_t net = 0;     // ABI 4
        std::uint64_t scoped = 0;  // ABI 6
};

constexpr std::uint64_t kRead = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr std::uint64_t kTruncate = 1ULL << 14;  // ABI 3
constexpr std::uint64_t kWrite =
        kRead | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;
constexpr std::uint64_t kPin =
        LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REMOVE_FILE;
// What a rule for a file, not a directory, may name.
constexpr std::uint64_t kOfFiles = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate;

// Number of rights of the file system by ABI: 13 at first, then refer, truncate, and ioctl of devices.
constexpr std::array kFileRights{0, 13, 14, 15, 15, 16};

Ruleset all_that(int abi) {
        const auto known = static_cast<std::size_t>(std::min(abi, static_cast<int>(kFileRights.size()) - 1));
        return {.files = (1ULL << kFileRights[known]) - 1,
                .net = abi >= 4 ? 0b11ULL : 0,      // bind and connect of TCP
                .scoped = abi >= 6 ? 0b11ULL : 0};  // abstract sockets and signals
}

Result<void> allow(int ruleset, const std::string& path, std::uint64_t rights) {
        const OwnedFd fd(open(path.c_str(), O_PATH | O_CLOEXEC));
        struct stat status {};
        if (!fd || fstat(fd.get(), &status) != 0) {
                return errno == ENOENT || errno == ENOTDIR || errno == EACCES
                               ? Result<void>{}
                               : fail_errno(fmt::format("cannot open {} to allow access to it", path));
        }
        landlock_path_beneath_attr rule{};
        rule.allowed_access = S_ISDIR(status.st_mode) ? rights : rights & kOfFiles;
        rule.parent_fd = fd.get();
        if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0) {
                return fail_errno(fmt::format("cannot allow access to {}", path));
        }
        return {};
}

}  // namespace

Result<int> restrict_files(const FileAccess& access) {
        const auto abi =
                static_cast<int>(syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION));
        if (abi < 1) {
                return fail_errno("cannot restrict access to files with Landlock");
        }
        const Ruleset wanted = all_that(abi);
        const std::size_t size = abi >= 6 ? sizeof wanted : abi >= 4 ? offsetof(Ruleset, scoped) : sizeof wanted.files;
        const OwnedFd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &wanted, size, 0)));
        if (!ruleset) {
                return fail_errno("cannot make a ruleset of Landlock");
        }
        const struct {
                const std::vector<std::string>& paths;
                std::uint64_t rights;
        } rules[] = {{access.read, kRead}, {access.write, kWrite | kTruncate}, {access.pin, kPin}};
        for (const auto& [paths, rights] : rules) {
                for (const std::string& path : paths) {
                        if (auto allowed = allow(ruleset.get(), path, rights & wanted.files); !allowed) {
                                return std::unexpected(allowed.error());
                        }
                }
        }
        if (syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0) {
                return fail_errno("cannot restrict access to files with Landlock; it needs no_new_privs");
        }
        return abi;
}

// Where there is nothing else to refuse, a right that stays granted everywhere: a ruleset must name one. Links and
// renames between directories are refused by any ruleset of files that does not grant them; the first ABI cannot.
Result<void> enter_domain(TcpBind tcp_bind) {
        const auto abi =
                static_cast<int>(syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION));
        if (abi < 2) {
                return {};
        }
        constexpr std::uint64_t kBindTcp = 1;
        constexpr std::uint64_t kGranted = LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_REFER;
        const bool net = tcp_bind == TcpBind::kRefused && abi >= 4;
        const Ruleset wanted{.files = net ? 0 : kGranted, .net = net ? kBindTcp : 0};
        const std::size_t size = net ? offsetof(Ruleset, scoped) : sizeof wanted.files;
        const OwnedFd ruleset(static_cast<int>(syscall(SYS_landlock_create_ruleset, &wanted, size, 0)));
        if (!ruleset) {
                return fail_errno("cannot make a ruleset of Landlock");
        }
        if (auto granted = net ? Result<void>{} : allow(ruleset.get(), "/", kGranted); !granted) {
                return granted;
        }
        if (syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0 && errno != E2BIG) {
                return fail_errno("cannot enter a domain of Landlock");
        }
        return {};
}

}  // namespace sockbroker
