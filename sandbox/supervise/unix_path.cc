// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/unix_path.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <vector>

namespace sockbroker::supervise {

namespace {

constexpr unsigned kMostLinks = 40;  // the kernel's MAXSYMLINKS
constexpr ino_t kRootOfProc = 1;     // its PROC_ROOT_INO
constexpr int kLook = O_PATH | O_CLOEXEC;

// Components of which the next is the last.
using Components = std::vector<std::string>;

void put_before(Components& left, std::string_view path) {
        while (!path.empty()) {
                const auto slash = path.rfind('/');
                left.emplace_back(slash == std::string_view::npos ? path : path.substr(slash + 1));
                path = path.substr(0, slash == std::string_view::npos ? 0 : slash);
        }
}

struct FolderFacts {
        struct stat status {};
        bool proc = false;

        [[nodiscard]] bool root_of_proc() const { return proc && status.st_ino == kRootOfProc; }
};

FolderFacts look_at(int fd) {
        FolderFacts folder;
        struct statfs system {};
        folder.proc =
                ::fstat(fd, &folder.status) == 0 && ::fstatfs(fd, &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
        return folder;
}

// fs.protected_symlinks, for links that are followed here and not by the kernel.
bool may_follow(const struct stat& link, const struct stat& folder) {
        constexpr mode_t kShared = S_ISVTX | S_IWOTH;
        return (folder.st_mode & kShared) != kShared || link.st_uid == ::geteuid() || link.st_uid == folder.st_uid;
}

class Walk {
public:
        Walk(const Target& target, int root) : target_(target), root_(root) {}

        // The errno; 0: `at` is the last folder.
        int go(Way& way, OwnedFd at, Components left) {
                while (!left.empty()) {
                        const std::string next = std::move(left.back());
                        left.pop_back();
                        if (next.empty() || next == ".") {
                                continue;
                        }
                        OwnedFd there(::openat(at.get(), next.c_str(), kLook | O_NOFOLLOW));
                        struct stat status {};
                        if (!there || ::fstat(there.get(), &status) != 0) {
                                return errno;
                        }
                        if (S_ISLNK(status.st_mode)) {
                                if (++links_ > kMostLinks) {
                                        return ELOOP;
                                }
                                const FolderFacts folder = look_at(at.get());
                                if (folder.proc && !folder.root_of_proc()) {
                                        // What it names is no text: cwd, root, fd/N of a process.
                                        there.reset(::openat(at.get(), next.c_str(), kLook));
                                        if (!there) {
                                                return errno;
                                        }
                                } else if (const int errnum = read_link(way, there, status, next, folder, left)) {
                                        return errnum;
                                } else if (!there) {
                                        continue;  // from here
                                }
                        }
                        at = std::move(there);
                }
                if (way.through_self && !foreign_.empty()) {
                        way.why = fmt::format("{} is somebody else's link in a folder that is everybody's", foreign_);
                        return EACCES;
                }
                way.folder = std::move(at);
                return 0;
        }

private:
        // Puts what the link says before what is left. `there` is then the root, or nothing.
        int read_link(Way& way, OwnedFd& there, const struct stat& link, const std::string& name,
                      const FolderFacts& folder, Components& left) {
                std::array<char, PATH_MAX> buffer{};
                const ssize_t size = ::readlinkat(there.get(), "", buffer.data(), buffer.size());
                if (size < 0) {
                        return errno;
                }
                std::string text(buffer.data(), static_cast<std::size_t>(size));
                const bool self = folder.root_of_proc() && name == "self";
                const bool thread = folder.root_of_proc() && name == "thread-self";
                if (self || thread) {
                        way.through_self = true;
                        const auto number = std::to_string(::getpid());
                        if (text != (self ? number : fmt::format("{}/task/{}", number, number))) {
                                way.why = "it leads through a /proc of another pid namespace";
                                return EACCES;
                        }
                        text = self ? std::to_string(target_.pid())
                                    : fmt::format("{}/task/{}", target_.pid(), target_.tid());
                } else if (!may_follow(link, folder.status)) {
                        foreign_ = name;
                }
                there.reset(text.starts_with('/') ? ::fcntl(root_, F_DUPFD_CLOEXEC, 3) : -1);
                if (text.starts_with('/') && !there) {
                        return errno;
                }
                put_before(left, text);
                return 0;
        }

        const Target& target_;
        int root_;
        unsigned links_ = 0;
        std::string foreign_;  // a link
};

}  // namespace

Way follow(std::string_view path, const Target& target, int root, int directory) {
        Way way;
        const auto last = path.find_last_not_of('/');
        const auto slash = last == std::string_view::npos ? last : path.rfind('/', last);
        way.name = path.substr(slash == std::string_view::npos ? 0 : slash + 1);
        Components left;
        put_before(left, path.substr(0, path.size() - way.name.size()));
        OwnedFd at(::fcntl(path.starts_with('/') ? root : directory, F_DUPFD_CLOEXEC, 3));
        way.errnum = at ? Walk(target, root).go(way, std::move(at), std::move(left)) : errno;
        return way;
}

}  // namespace sockbroker::supervise
