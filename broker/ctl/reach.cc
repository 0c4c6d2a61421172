// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/reach.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>

#include "broker/policy/read_files.h"

namespace sockbroker::ctl {

namespace {

constexpr int kMaxLinks = 40;  // of the kernel, in one path

Permissions permissions_of(const std::filesystem::path& path, const struct stat& status) {
        return {.uid = status.st_uid,
                .gid = status.st_gid,
                .mode = status.st_mode,
                .has_acl = ::getxattr(path.c_str(), "system.posix_acl_access", nullptr, 0) > 0};
}

// Whether the user is refused on the way to the path, links and all, or at its end. False where that is not known.
bool is_refused(const std::filesystem::path& path, const UserIds& user, Access wanted) {
        std::filesystem::path at = "/";
        std::vector<std::filesystem::path> rest;  // the next one last
        const auto go_to = [&rest](const std::filesystem::path& target) {
                const std::vector<std::filesystem::path> parts(target.begin(), target.end());
                rest.insert(rest.end(), parts.rbegin(), parts.rend());
        };
        go_to(path);
        int links = 0;
        struct stat status {};
        while (!rest.empty()) {
                const auto part = std::move(rest.back());
                rest.pop_back();
                if (part.is_absolute()) {
                        at = "/";
                        continue;
                }
                if (part.empty() || part == ".") {
                        continue;
                }
                if (::stat(at.c_str(), &status) != 0) {
                        return false;
                }
                if (!may(user, permissions_of(at, status), Access::kSearch)) {
                        return true;
                }
                if (part == "..") {
                        at = at.parent_path();
                        continue;
                }
                const auto next = at / part;
                if (::lstat(next.c_str(), &status) != 0) {
                        return false;
                }
                if (S_ISLNK(status.st_mode)) {
                        std::error_code error;
                        const auto target = std::filesystem::read_symlink(next, error);
                        if (error || ++links > kMaxLinks) {
                                return false;
                        }
                        go_to(target);
                        continue;
                }
                at = next;
        }
        return ::stat(at.c_str(), &status) == 0 && !may(user, permissions_of(at, status), wanted);
}

// Those that count, by name: a file in an earlier folder stands for one of the same name in a later one.
void look_at_drop_ins(const std::vector<std::string>& config_dirs, const std::string& subdirectory, const UserIds& user,
                      std::vector<Diagnostic>& found) {
        std::map<std::string, std::string> paths;
        for (const auto& dir : config_dirs) {
                const auto folder = fmt::format("{}/{}", dir, subdirectory);
                if (is_refused(folder, user, Access::kRead)) {
                        found.push_back({folder, 0, Severity::kError, no_access_to_directory().text()});
                        continue;
                }
                std::error_code error;
                for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
                     entry.increment(error)) {
                        if (auto name = entry->path().filename().string(); is_drop_in_name(name)) {
                                paths.try_emplace(std::move(name), entry->path().string());
                        }
                }
        }
        for (const auto& [name, path] : paths) {
                if (is_refused(path, user, Access::kRead)) {
                        found.push_back({path, 0, Severity::kError, no_access_to_file().text()});
                }
        }
}

}  // namespace

bool may(const UserIds& user, const Permissions& permissions, Access access) {
        const bool owner = user.uid == permissions.uid;
        const bool member = std::ranges::find(user.groups, permissions.gid) != user.groups.end();
        const unsigned shift = owner ? 6 : member ? 3 : 0;
        return permissions.has_acl || (permissions.mode >> shift & static_cast<mode_t>(access)) != 0;
}

std::vector<Diagnostic> out_of_reach(const std::vector<std::string>& config_dirs, const UserIds& user) {
        std::vector<Diagnostic> found;
        for (const auto& dir : config_dirs) {
                const auto path = dir + "/sockbrokerd.conf";
                struct stat status {};
                if (is_refused(path, user, Access::kRead)) {
                        found.push_back({path, 0, Severity::kError, no_access_to_file().text()});
                        break;
                }
                if (::lstat(path.c_str(), &status) == 0) {
                        break;
                }
        }
        look_at_drop_ins(config_dirs, "sockbrokerd.conf.d", user, found);
        look_at_drop_ins(config_dirs, "conf.d", user, found);
        return found;
}

}  // namespace sockbroker::ctl
