// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "broker/base/owned_fd.h"

namespace sockbroker {

namespace {

Result<void> write_all(int fd, std::string_view data) {
        while (!data.empty()) {
                const ssize_t done = ::write(fd, data.data(), data.size());
                if (done < 0 && errno == EINTR) {
                        continue;
                }
                if (done < 0) {
                        return fail_errno("write");
                }
                data.remove_prefix(static_cast<std::size_t>(done));
        }
        return {};
}

// So that names outlive a power cut.
Result<void> sync_folder_of(const std::string& path) {
        const auto slash = path.rfind('/');
        const auto folder = slash == std::string::npos ? std::string(".") : path.substr(0, slash + 1);
        const OwnedFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!fd || ::fsync(fd.get()) < 0) {
                return fail_errno("fsync of the directory");
        }
        return {};
}

}  // namespace

Result<void> replace_file(const std::string& path, const std::function<Result<void>(const AppendText&)>& fill) {
        const auto aside = path + ".new";
        const auto cleared = [&](Error error) {
                ::unlink(aside.c_str());
                return std::unexpected(std::move(error));
        };
        // New, whatever a broker that died has left: to open what exists for writing is denied, sandbox/broker.profile.
        ::unlink(aside.c_str());
        const OwnedFd fd(::open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        if (!fd) {
                return cleared({errno, "open"});
        }
        if (auto done = fill([&](std::string_view text) { return write_all(fd.get(), text); }); !done) {
                return cleared(std::move(done.error()));
        }
        if (::fsync(fd.get()) < 0) {
                return cleared({errno, "fsync"});
        }
        if (std::rename(aside.c_str(), path.c_str()) < 0) {
                return cleared({errno, "rename"});
        }
        return sync_folder_of(path);
}

Result<void> remove_file(const std::string& path) {
        if (::unlink(path.c_str()) < 0) {
                const int why = errno;  // also of what is not there, where the file system is read-only (EROFS)
                struct stat there {};
                const bool none = why == ENOENT || (::lstat(path.c_str(), &there) < 0 && errno == ENOENT);
                return none ? Result<void>() : Result<void>(fail(why, "unlink"));
        }
        return sync_folder_of(path);
}

}  // namespace sockbroker
