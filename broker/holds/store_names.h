// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Names in PID 1's store of descriptors. It passes all of them in one environment string, LISTEN_FDNAMES, and the
// kernel takes none of more than 128 KiB: with more the broker could never be started again. So names are as short as
// can be, and there are no more of them than fit. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>

namespace sockbroker {

class StoreNames {
public:
        // MAX_ARG_STRLEN of the kernel, with ample room for the variable's name and those of the socket unit.
        static constexpr std::size_t kMaxBytes = std::size_t{124} * 1024;

        explicit StoreNames(std::size_t most) : most_(most) {}

        // A name that is in no use from now on until released; none: there is no room for another.
        [[nodiscard]] std::optional<std::string> take();
        // In use already, by an earlier broker; it need not be one that take() would give. Counts though there is no
        // room.
        void reserve(const std::string& name);
        void release(const std::string& name);

        [[nodiscard]] std::size_t most() const { return most_; }

private:
        const std::size_t most_;
        std::set<std::string, std::less<>> used_;
        std::set<std::uint32_t> free_;  // below next_, and in no use
        std::uint32_t next_ = 0;
        std::size_t bytes_ = 0;
};

}  // namespace sockbroker
