// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/default_places.h"

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

void DefaultPlaces::override_by(const DefaultPlaces& named) {
        const auto take = [](auto& place, const auto& other) { place = other.empty() ? place : other; };
        take(config_dirs, named.config_dirs);
        take(runtime_dir, named.runtime_dir);
        take(bpffs, named.bpffs);
        take(state_dir, named.state_dir);
}

Result<DefaultPlaces> places_of_netns(std::string_view name) {
        if (name.empty() || name.size() > kMaxName || !std::ranges::all_of(name, plain)) {
                return fail("cannot serve a network namespace of the name \"" + printable(name) +
                            "\": 1 to 40 letters, digits and \"_-:\" are possible; give the namespace another name "
                            "beside it, or each place by an option of its own");
        }
        DefaultPlaces places;
        const std::string below = "/netns/" + std::string(name);
        for (std::string& dir : places.config_dirs) {
                dir += below;
        }
        for (std::string* place : {&places.runtime_dir, &places.bpffs, &places.state_dir}) {
                *place += below;
        }
        return places;
}

}  // namespace sockbroker
