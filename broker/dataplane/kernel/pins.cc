// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include <fmt/format.h>

namespace sockbroker {

Result<PinDir> PinDir::open(const std::string& path) {
        struct statfs facts {};
        if (statfs(path.c_str(), &facts) != 0) {
                return fail_errno(fmt::format("cannot look at the directory {} for pins; make it first", path));
        }
        if (facts.f_type != BPF_FS_MAGIC) {
                return fail(fmt::format("{} is not on a bpffs; mount one there (mount -t bpf bpf DIR)", path));
        }
        return PinDir(path);
}

Result<OwnedFd> PinDir::get(const char* name) const {
        OwnedFd fd(bpf_obj_get(path_of(name).c_str()));
        if (!fd) {
                return fail_errno(fmt::format("cannot open the pin {}", path_of(name)));
        }
        return fd;
}

Result<void> PinDir::pin(const char* name, int fd) const {
        if (bpf_obj_pin(fd, path_of(name).c_str()) != 0) {
                return fail_errno(fmt::format("cannot pin {}; the directory must be writable for the broker's user",
                                              path_of(name)));
        }
        return {};
}

Result<void> PinDir::replace(const char* name, int fd) const {
        const std::string aside = std::string(name) + "_new";
        if (auto removed = remove(aside.c_str()); !removed) {  // a crash may have left it
                return removed;
        }
        if (auto pinned = pin(aside.c_str(), fd); !pinned) {
                return pinned;
        }
        return rename(aside.c_str(), name);
}

Result<void> PinDir::rename(const char* from, const char* to) const {
        if (::rename(path_of(from).c_str(), path_of(to).c_str()) != 0) {
                return fail_errno(fmt::format("cannot rename the pin {}", path_of(from)));
        }
        return {};
}

Result<void> PinDir::remove(const char* name) const {
        if (unlink(path_of(name).c_str()) != 0 && errno != ENOENT) {
                return fail_errno(fmt::format("cannot remove the pin {}", path_of(name)));
        }
        return {};
}

Result<std::vector<std::string>> PinDir::names() const {
        const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path_.c_str()), closedir);
        if (!directory) {
                return fail_errno(fmt::format("cannot read the directory {}", path_));
        }
        std::vector<std::string> result;
        while (const dirent* entry = readdir(directory.get())) {
                const std::string name = entry->d_name;
                if (name != "." && name != "..") {
                        result.push_back(name);
                }
        }
        return result;
}

Result<void> PinDir::clear() const {
        const auto all = names();
        if (!all) {
                return std::unexpected(all.error());
        }
        for (const auto& name : *all) {
                if (auto removed = remove(name.c_str()); !removed) {
                        return removed;
                }
        }
        return {};
}

}  // namespace sockbroker
