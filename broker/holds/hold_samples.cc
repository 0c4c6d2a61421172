// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether anybody reads the sockets that are kept: holders look at their queues from time to time, and Unread judges.
#include <algorithm>
#include <memory>

#include "broker/holds/holds.h"

namespace sockbroker {

void Holds::sample_in(std::int64_t usec) {
        sampling_.reset();
        sample_every_usec_ = usec;
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time_relative(
                event_, &source, CLOCK_MONOTONIC, static_cast<std::uint64_t>(usec),
                static_cast<std::uint64_t>(usec / 8),
                [](sd_event_source*, std::uint64_t, void* self) {
                        return guarded([&] { static_cast<Holds*>(self)->sample_queues(); });
                },
                this);
        sampling_.reset(r < 0 ? nullptr : source);
}

// Of those that serve, and of those that are held while others may have them. The clock of all else runs already.
void Holds::sample_queues() {
        std::int64_t next = 0;
        std::map<std::string, std::vector<std::uint64_t>> wanted;
        std::erase_if(being_sampled_, [](const auto& entry) { return entry.second.expired(); });
        for (const auto& [key, kept] : kept_) {
                const auto every = sampling_of(kept.held.hold_usec);
                next = next == 0 ? every : std::min(next, every);
                if ((kept.held.gone_usec == 0 || kept.held.alone) && !being_sampled_.contains(key.service)) {
                        wanted[key.service].push_back(key.cookie);
                }
        }
        sampling_.reset();
        sample_every_usec_ = 0;
        if (next != 0) {
                sample_in(next);
        }
        for (const auto& [service, cookies] : wanted) {
                sample(service, cookies);
        }
}

void Holds::sample(const std::string& service, const std::vector<std::uint64_t>& cookies) {
        const auto order = std::make_shared<int>();
        being_sampled_[service] = order;
        for (std::size_t at = 0; at < cookies.size(); at += kMaxMessageFds) {
                const auto end = std::min(cookies.size(), at + kMaxMessageFds);
                crew_.sample(service,
                             {cookies.begin() + static_cast<std::ptrdiff_t>(at),
                              cookies.begin() + static_cast<std::ptrdiff_t>(end)},
                             [this, open = open_, order, service](const hands::Taken& taken) {
                                     if (*open) {
                                             sampled(service, taken.found);
                                     }
                             });
        }
}

void Holds::sampled(const std::string& service, const std::vector<hands::Found>& samples) {
        const auto now = steady_usec();
        std::vector<HoldKey> unread;
        std::vector<HoldKey> read;
        for (const auto& one : samples) {
                const auto at = kept_.find({service, one.facts.cookie});
                if (at == kept_.end() || one.errnum != 0) {
                        continue;
                }
                auto& [key, kept] = *at;
                if (kept.held.gone_usec != 0 && !kept.held.alone) {
                        continue;
                }
                if (kept.unread.sample(one.waiting, now) && kept.held.alone) {
                        read.push_back(key);
                } else if (kept.held.gone_usec == 0 && kept.unread.for_longer_than(kept.held.hold_usec, now)) {
                        unread.push_back(key);
                }
        }
        for (const auto& key : read) {
                if (const auto found = kept_.find(key); found != kept_.end()) {
                        found->second.others_read = true;
                        back(found->second);
                }
        }
        for (const auto& key : unread) {
                if (kept_.contains(key)) {
                        end(key, HoldEnd::kUnread);
                }
        }
}

}  // namespace sockbroker
