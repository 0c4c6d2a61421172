// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Who has lately kept hands asleep, though never until they were late: by unit, else by uid. A leaky bucket of the time
// that hands slept in what they sent. One that waits for a processor does not sleep, so a busy machine makes nobody
// slow. Pure. Where there is no memory nobody is noted.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "broker/hands/ledger.h"

namespace sockbroker::hands {

class SlowSenders {
public:
        static constexpr std::int64_t kMostUsec = 20'000;  // in all, of which half is forgotten every second
        static constexpr std::int64_t kRememberUsec = 10'000'000;
        static constexpr std::size_t kMaxKnown = 1024;  // then the one that slept first is forgotten

        void note(const Charge& charge, std::int64_t slept_usec, std::int64_t now_usec) noexcept;
        [[nodiscard]] bool has(const Charge& charge, std::int64_t now_usec) const;

private:
        struct Sender {
                double slept_usec = 0;
                std::int64_t at_usec = 0;
                std::int64_t slow_until_usec = 0;
        };
        std::map<std::string, Sender> senders_;
};

}  // namespace sockbroker::hands
