// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include <fmt/format.h>

#include "broker/base/digest.h"
#include "broker/base/huge_pages.h"
#include "broker/base/owned_fd.h"
#include "broker/policy/read_files.h"

namespace sockbroker {

namespace {

struct CloseDir {
        void operator()(DIR* dir) const { ::closedir(dir); }
};

// The broker's user, and readable_paths().
constexpr std::string_view kHowToReach =
        "let the broker's user read it, and no link lead out of /etc, /usr/lib and the policy directories";

// Of a path that does not exist: in place of what the system says of it.
Error nowhere(const std::string& path, const std::string& link, std::string_view what) {
        return {0, fmt::format("{} is a link to nowhere, mend the link or remove it", link == path ? what : link)};
}

bool is_null_device(const struct stat& status) {
        return S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
}

// Names of one directory; a directory that does not exist has none. A link to nowhere is not that: what it meant is not
// known.
Result<std::vector<std::string>> list_drop_ins(const std::string& folder) {
        const std::unique_ptr<DIR, CloseDir> dir(::opendir(folder.c_str()));
        if (!dir) {
                if (errno != ENOENT) {
                        return fail(errno, no_access_to_directory().message);
                }
                if (const auto link = link_to_nowhere(folder); !link.empty()) {
                        return std::unexpected(nowhere(folder, link, "the directory"));
                }
                return std::vector<std::string>{};
        }
        std::vector<std::string> names;
        while (true) {
                errno = 0;
                const auto* entry = ::readdir(dir.get());
                if (entry == nullptr) {
                        break;
                }
                if (is_drop_in_name(entry->d_name)) {
                        names.emplace_back(entry->d_name);
                }
        }
        if (errno != 0) {
                return fail_errno("cannot list the directory");
        }
        return names;
}

// `size`: what it is now; it may grow or shrink while it is read.
Result<std::string> read_to_end(int fd, std::size_t size, std::size_t limit) {
        std::string text;
        std::size_t used = 0;
        while (std::max(size, used) <= limit) {
                const std::size_t room = used <= size ? size + 1 : used + 4096;  // one more, to see the end
                text.reserve(room);
                prefer_huge_pages(text.data() + used, text.capacity() - used);
                ssize_t got = 0;
                text.resize_and_overwrite(room, [&](char* data, std::size_t count) {
                        got = ::read(fd, data + used, count - used);
                        return used + static_cast<std::size_t>(std::max<ssize_t>(got, 0));
                });
                if (got < 0 && errno != EINTR) {
                        return fail_errno("cannot read the file");
                }
                if (got == 0) {
                        return text;
                }
                used = text.size();
        }
        return fail(fmt::format("larger than {} bytes, split it", limit));
}

}  // namespace

// Hidden files are an editor's or a package manager's.
bool is_drop_in_name(std::string_view name) {
        return name.size() > 5 && name.ends_with(".conf") && name.front() != '.';
}

Error no_access_to_file() {
        return {EACCES, fmt::format("cannot read the file, {}", kHowToReach)};
}

Error no_access_to_directory() {
        return {EACCES, fmt::format("cannot open the directory, {}, or remove it", kHowToReach)};
}

std::string link_to_nowhere(const std::string& path) {
        struct stat status {};
        for (std::filesystem::path part = path; part.has_relative_path(); part = part.parent_path()) {
                if (::lstat(part.c_str(), &status) == 0) {
                        return S_ISLNK(status.st_mode) && ::stat(part.c_str(), &status) != 0 ? part.string()
                                                                                             : std::string{};
                }
        }
        return {};
}

Result<std::string> read_whole_file(const std::string& path, std::size_t limit) {
        // Looked at before it is opened, since opening a device or a FIFO can do things; and again afterwards.
        struct stat status {};
        if (::stat(path.c_str(), &status) < 0) {
                const int errnum = errno;
                if (errnum == EACCES) {
                        return std::unexpected(no_access_to_file());
                }
                const auto link = link_to_nowhere(path);
                return link.empty() ? fail(errnum, "cannot read the file")
                                    : std::unexpected(nowhere(path, link, "the file"));
        }
        if (is_null_device(status)) {
                return std::string{};
        }
        const char* const kIrregular = "is neither a regular file nor a link to one or to /dev/null, remove it";
        if (!S_ISREG(status.st_mode)) {
                return fail(kIrregular);
        }
        const OwnedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
        if (!fd) {
                return fail(errno, no_access_to_file().message);
        }
        if (::fstat(fd.get(), &status) < 0) {
                return fail_errno("cannot read the file");
        }
        if (!S_ISREG(status.st_mode)) {
                return fail(kIrregular);
        }
        return read_to_end(fd.get(), static_cast<std::size_t>(status.st_size), limit);
}

FoundFiles read_drop_ins(const std::vector<std::string>& config_dirs, const std::string& subdirectory,
                         const Touch& touch) {
        const auto reads = [&touch](const std::string& path) {
                if (touch) {
                        touch(path);
                }
        };
        FoundFiles found;
        std::map<std::string, std::string> paths;  // name to the path that counts
        for (const auto& dir : config_dirs) {
                const auto folder = fmt::format("{}/{}", dir, subdirectory);
                reads(folder);
                auto names = list_drop_ins(folder);
                if (!names) {
                        found.diagnostics.push_back({folder, 0, Severity::kError, names.error().text()});
                        continue;
                }
                for (auto& name : *names) {
                        auto path = fmt::format("{}/{}", folder, name);
                        paths.try_emplace(std::move(name), std::move(path));
                }
        }
        found.any = !paths.empty();
        for (const auto& [name, path] : paths) {
                reads(path);
                auto text = read_whole_file(path);
                if (!text) {
                        found.diagnostics.push_back({path, 0, Severity::kError, text.error().text()});
                } else if (!text->empty()) {
                        found.files.push_back({path, std::move(*text)});
                }
        }
        return found;
}

FoundFiles read_policy_files(const std::vector<std::string>& config_dirs) {
        return read_drop_ins(config_dirs, "conf.d");
}

std::string digest_of(const std::vector<PolicyFile>& files) {
        Digest digest;
        for (const auto& file : files) {
                digest.add(file.path);
                digest.add(file.text);
        }
        return digest.text();
}

ParsedPolicy load_policy(const std::vector<std::string>& config_dirs, const PolicyLimits& limits) {
        auto found = read_policy_files(config_dirs);
        auto parsed = parse_policy(found.files, limits);
        if (!found.diagnostics.empty()) {
                parsed.policy.reset();
                parsed.errors += found.diagnostics.size();
                parsed.diagnostics.insert(parsed.diagnostics.begin(), found.diagnostics.begin(),
                                          found.diagnostics.end());
        }
        return parsed;
}

}  // namespace sockbroker
