// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The directory of a bpffs in which dispatch lives on without a broker. Knows names and files, not what they mean.
#pragma once

#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

class PinDir {
public:
        // Errors: it does not exist, or is not on a bpffs.
        [[nodiscard]] static Result<PinDir> open(const std::string& path);

        [[nodiscard]] std::string path_of(const char* name) const { return path_ + "/" + name; }
        [[nodiscard]] Result<OwnedFd> get(const char* name) const;  // ENOENT: not pinned
        [[nodiscard]] Result<void> pin(const char* name, int fd) const;
        // Pins under the name in one step, whatever was pinned there before.
        [[nodiscard]] Result<void> replace(const char* name, int fd) const;
        // In one step, over what was pinned there before. ENOENT: nothing is pinned under the first name.
        [[nodiscard]] Result<void> rename(const char* from, const char* to) const;
        [[nodiscard]] Result<void> remove(const char* name) const;  // also where nothing is pinned
        [[nodiscard]] Result<std::vector<std::string>> names() const;
        // Removes every pin.
        [[nodiscard]] Result<void> clear() const;

private:
        explicit PinDir(std::string path) : path_(std::move(path)) {}
        std::string path_;
};

}  // namespace sockbroker
