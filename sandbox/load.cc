// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See load.h.
#include "sandbox/load.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <memory>

#include "broker/base/owned_fd.h"
#include "sandbox/statement.h"

namespace sockbroker::sandbox {

namespace {

constexpr std::string_view kSuffix = ".profile";
constexpr std::size_t kMaxBytes = 1 << 20;

Result<ProfileFile> read_file(const std::string& path) {
        // Not to wait for the writer of a FIFO that somebody put there.
        const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
        struct stat status {};
        if (!fd || ::fstat(fd.get(), &status) < 0) {
                return fail_errno(fmt::format("cannot read the profile {}", path));
        }
        if (S_ISDIR(status.st_mode)) {
                return fail(EISDIR, fmt::format("cannot read the profile {}", path));
        }
        ProfileFile file{path, {}};
        char buffer[16384];
        ssize_t size = 0;
        while ((size = ::read(fd.get(), buffer, sizeof buffer)) > 0) {
                file.text.append(buffer, static_cast<std::size_t>(size));
                if (file.text.size() > kMaxBytes) {
                        return fail(EFBIG,
                                    fmt::format("cannot take the profile {}, of more than {} bytes", path, kMaxBytes));
                }
        }
        if (size < 0) {
                return fail_errno(fmt::format("cannot read the profile {}", path));
        }
        return file;
}

Result<ProfileFile> find(const std::string& name, const std::vector<std::string>& folders) {
        for (const std::string& folder : folders) {
                auto file = read_file(fmt::format("{}/{}{}", folder, name, kSuffix));
                if (file || file.error().errnum != ENOENT) {
                        return file;
                }
        }
        return fail(fmt::format("there is no {}{} in {}", name, kSuffix, fmt::join(folders, ", ")));
}

// Names of drop-ins and their paths, of the first directory that has each.
Result<std::map<std::string, std::string>> drop_ins(const std::string& name, const std::vector<std::string>& folders) {
        std::map<std::string, std::string> found;
        for (const std::string& folder : folders) {
                const std::string path = fmt::format("{}/{}{}.d", folder, name, kSuffix);
                const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
                if (!directory) {
                        if (errno == ENOENT || errno == ENOTDIR) {
                                continue;
                        }
                        return fail_errno(fmt::format("cannot read the drop-ins in {}", path));
                }
                while (const dirent* const entry = ::readdir(directory.get())) {
                        const std::string_view file = entry->d_name;
                        if (file.ends_with(kSuffix) && !file.starts_with('.')) {
                                found.try_emplace(std::string(file), fmt::format("{}/{}", path, file));
                        }
                }
        }
        return found;
}

ParsedProfile failed(const std::string& wanted, const Error& error) {
        return {std::nullopt, {{wanted, 0, error.text()}}};
}

}  // namespace

const std::vector<std::string>& profile_folders() {
        static const std::vector<std::string> folders = {"/etc/sockbroker/sandbox", "/run/sockbroker/sandbox",
                                                         "/usr/local/lib/sockbroker/sandbox",
                                                         "/usr/lib/sockbroker/sandbox"};
        return folders;
}

ParsedProfile load_profile(const std::string& wanted, const std::vector<std::string>& folders,
                           const std::vector<ProfileFile>& additions) {
        const bool is_path = wanted.find('/') != std::string::npos;
        if (!is_path && !valid_profile_name(wanted)) {
                return failed(wanted, {0, "is neither the name of a profile nor, with a slash in it, the path of one"});
        }
        std::vector<ProfileFile> files;
        if (auto file = is_path ? read_file(wanted) : find(wanted, folders)) {
                files.push_back(std::move(*file));
        } else {
                return failed(wanted, file.error());
        }
        if (!is_path) {
                const auto found = drop_ins(wanted, folders);
                if (!found) {
                        return failed(wanted, found.error());
                }
                for (const auto& [name, path] : *found) {
                        auto file = read_file(path);
                        if (!file) {
                                return failed(wanted, file.error());
                        }
                        files.push_back(std::move(*file));
                }
        }
        files.insert(files.end(), additions.begin(), additions.end());
        std::vector<std::string> around = folders;
        if (is_path) {
                around.insert(around.begin(), wanted.substr(0, wanted.rfind('/') + 1));
        }
        return parse_profile(wanted, files, [&](const std::string& name) { return find(name, around); });
}

}  // namespace sockbroker::sandbox
