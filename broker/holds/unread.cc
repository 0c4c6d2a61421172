// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/unread.h"

#include <algorithm>
#include <utility>

namespace sockbroker {

std::int64_t sampling_of(std::int64_t hold_usec) {
        return std::clamp<std::int64_t>(hold_usec / 8, 50'000, 1'000'000);
}

bool Unread::sample(std::uint64_t waiting, std::int64_t now_usec) {
        const bool read = waiting < std::exchange(waiting_, waiting);
        if (read || waiting == 0 || samples_ == 0) {
                since_usec_ = now_usec;
                samples_ = waiting == 0 ? 0 : 1;
        } else {
                samples_++;
        }
        return read;
}

bool Unread::for_longer_than(std::int64_t span_usec, std::int64_t now_usec) const {
        return samples_ >= kEnough && now_usec - since_usec_ >= span_usec;
}

}  // namespace sockbroker
