// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/directories.h"

#include <algorithm>

#include "broker/base/printable.h"

namespace sockbroker {

namespace {

constexpr std::size_t kMaxName = 40;  // the path of a socket has 107 bytes in all

// No dot: the kernel keeps names with one on a bpffs for itself.
bool plain(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
               c == ':';
}

}  // namespace

void Directories::override_by(const Directories& named) {
        const auto take = [](auto& directory, const auto& other) { directory = other.empty() ? directory : other; };
        take(config_dirs, named.config_dirs);
        take(runtime_dir, named.runtime_dir);
        take(bpffs, named.bpffs);
        take(state_dir, named.state_dir);
}

Result<Directories> directories_of_netns(std::string_view name) {
        if (name.empty() || name.size() > kMaxName || !std::ranges::all_of(name, plain)) {
                return fail("cannot serve a network namespace of the name \"" + printable(name) +
                            "\": 1 to 40 letters, digits and \"_-:\" are possible; give the namespace another name "
                            "beside it, or each directory by an option of its own");
        }
        Directories directories;
        const std::string below = "/netns/" + std::string(name);
        for (std::string& dir : directories.config_dirs) {
                dir += below;
        }
        for (std::string* directory : {&directories.runtime_dir, &directories.bpffs, &directories.state_dir}) {
                *directory += below;
        }
        return directories;
}

}  // namespace sockbroker
