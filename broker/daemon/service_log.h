// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which entries about the sockets of a service are written to the journal one by one: a service that registers without
// end fills no journal. Far more than an honest one needs. Pure: the caller brings the time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "broker/audit/audit.h"

namespace sockbroker {

class ServiceLog {
public:
        static constexpr std::int64_t kWindowUsec = 30'000'000;
        // Entries of one service and kind in a window: whoever may have many sockets may replace them all.
        [[nodiscard]] static std::uint32_t burst(std::uint32_t max_sockets) {
                constexpr std::uint32_t kAtLeast = 600;
                return std::max(kAtLeast, max_sockets);
        }

        enum class Verdict : std::uint8_t {
                kWritten,
                kFirstLeftOut,  // of this window
                kLeftOut,
        };
        [[nodiscard]] Verdict count(const std::string& service, Action action, std::uint32_t burst,
                                    std::int64_t now_usec);

        // Of windows that are over, each once.
        struct LeftOut {
                std::string service;
                Action action{};
                std::uint64_t count = 0;
        };
        [[nodiscard]] std::vector<LeftOut> take_left_out(std::int64_t now_usec);

private:
        struct Window {
                std::int64_t begin_usec = 0;
                std::uint32_t written = 0;
                std::uint64_t left_out = 0;
        };
        using Windows =
                std::map<std::pair<std::string, Action>, Window>;  // of services that policy has, or had just now
        Windows::iterator end_window(Windows::iterator at);

        Windows windows_;
        std::vector<LeftOut> ended_;
};

}  // namespace sockbroker
