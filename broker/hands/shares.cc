// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/shares.h"

#include <algorithm>

#include "broker/hands/wire.h"

namespace sockbroker::hands {

std::size_t Shares::of_uid(std::size_t room) {
        constexpr std::size_t kOfRoom = 16;
        constexpr std::size_t kLeast = 2 * kMaxMessageFds;
        constexpr std::size_t kMost = 4096;
        return std::clamp(room / kOfRoom, kLeast, kMost);
}

bool Shares::is_over(const Party& party, const Holding& holding) const {
        const std::size_t most = party.group.empty() ? most_of_uid_ : kUidsOfGroup * most_of_uid_;
        return holding.count > most || holding.in.size() > kMaxProcesses;
}

bool Shares::is_over(const Party& party) const {
        const auto found = holdings_.find(party);
        return found != holdings_.end() && is_over(party, found->second);
}

bool Shares::add(std::uint32_t child, const Party& party, std::size_t count) {
        Holding& holding = holdings_[party];
        const bool was_over = is_over(party, holding);
        holding.in[child] += count;
        holding.count += count;
        return !was_over && is_over(party, holding);
}

void Shares::exited(std::uint32_t child, const std::function<void(const Party&)>& may_send_again) {
        for (auto one = holdings_.begin(); one != holdings_.end();) {
                auto& [party, holding] = *one;
                const bool was_over = is_over(party, holding);
                if (const auto in = holding.in.find(child); in != holding.in.end()) {
                        holding.count -= in->second;
                        holding.in.erase(in);
                }
                if (was_over && !is_over(party, holding)) {
                        may_send_again(party);
                }
                one = holding.in.empty() ? holdings_.erase(one) : std::next(one);
        }
}

}  // namespace sockbroker::hands
