// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/targets.h"

#include <algorithm>

namespace sockbroker {

static_assert(kReserveDepth == SB_DEPTH && kMaxShared == SB_MAX_SHARED);
static_assert(SB_WHICH(1, 0) == 2, "the places of a record are [protocol][family] like Targets");

namespace {

constexpr std::size_t kWhich = 4;
constexpr std::size_t kFirstOfUdp = SB_WHICH(1, 0);

const std::vector<Slot>& slots_of(const Targets& targets, std::size_t which) {
        return targets.slots[which / 2][which % 2];
}

std::size_t chained(std::size_t slots) {
        return slots <= SB_DEPTH ? 0 : (slots + SB_CHAIN - 1) / SB_CHAIN;
}

std::uint32_t first_slot(const sb_record& record, std::size_t which) {
        return record.slot[which][0];
}

std::uint32_t remembered_of(const Targets& targets) {
        return (targets.stay ? SB_SLOT_STAY : 0U) | (targets.reply ? std::uint32_t{SB_SLOT_REPLY} : 0U);
}

// Calls visit(index, record) for each record of a chain. One that was damaged ends, or goes on no longer than any may.
template <class Visit>
void walk_chain(std::uint32_t index, std::span<const sb_record> records, Visit visit) {
        for (std::uint32_t i = 0; i < SB_CHAINED_RECORDS && index != 0 && index < records.size(); i++) {
                visit(index, records[index]);
                index = records[index].chain.next;
        }
}

}  // namespace

std::size_t records_for(const Targets& targets) {
        std::size_t count = 1;
        for (std::size_t which = 0; which < kWhich; which++) {
                count += chained(slots_of(targets, which).size());
        }
        return count;
}

void write_records(const Targets& targets, std::span<const std::uint32_t> indices, std::span<sb_record> records) {
        std::uint32_t flags = 0;
        if (targets.share) {
                flags |= SB_SLOT_SHARE;
        }
        if (targets.reuse_port) {
                flags |= SB_SLOT_REUSEPORT;
        }
        sb_record head{};
        std::size_t used = 1;
        for (std::size_t which = 0; which < kWhich; which++) {
                const auto& slots = slots_of(targets, which);
                const std::size_t count = chained(slots.size());
                if (count == 0) {
                        std::ranges::copy(slots, head.slot[which]);
                } else {
                        head.slot[which][0] = indices[used] | SB_SLOT_CHAIN;
                }
                if (!slots.empty()) {
                        head.slot[which][0] |= flags | (which >= kFirstOfUdp ? remembered_of(targets) : 0U);
                }
                for (std::size_t i = 0; i < count; i++) {
                        sb_record link{};
                        const auto rest = std::span(slots).subspan(i * SB_CHAIN);
                        std::ranges::copy(rest.first(std::min<std::size_t>(rest.size(), SB_CHAIN)), link.chain.slot);
                        link.chain.next = i + 1 < count ? indices[used + i + 1] : 0;
                        records[indices[used + i]] = link;
                }
                used += count;
        }
        records[indices[0]] = head;
}

Targets read_records(std::uint32_t index, std::span<const sb_record> records) {
        Targets targets;
        if (index >= records.size()) {
                return targets;
        }
        const sb_record& head = records[index];
        for (std::size_t which = 0; which < kWhich; which++) {
                const std::uint32_t first = first_slot(head, which);
                auto& slots = targets.slots[which / 2][which % 2];
                targets.share = targets.share || (first & SB_SLOT_SHARE) != 0;
                targets.reuse_port = targets.reuse_port || (first & SB_SLOT_REUSEPORT) != 0;
                targets.stay = targets.stay || (first & SB_SLOT_STAY) != 0;
                targets.reply = targets.reply || (first & SB_SLOT_REPLY) != 0;
                const auto add = [&slots](std::uint32_t word) {
                        if ((word & SB_SLOT_NUMBER) != 0) {
                                slots.push_back(word & SB_SLOT_NUMBER);
                        }
                };
                if ((first & SB_SLOT_CHAIN) == 0) {
                        std::ranges::for_each(head.slot[which], add);
                        continue;
                }
                walk_chain(first & SB_SLOT_NUMBER, records,
                           [&](std::uint32_t, const sb_record& link) { std::ranges::for_each(link.chain.slot, add); });
        }
        return targets;
}

std::vector<std::uint32_t> records_behind(std::uint32_t index, std::span<const sb_record> records) {
        std::vector<std::uint32_t> result;
        if (index == 0 || index >= records.size()) {
                return result;
        }
        result.push_back(index);
        for (std::size_t which = 0; which < kWhich; which++) {
                const std::uint32_t first = first_slot(records[index], which);
                if ((first & SB_SLOT_CHAIN) != 0) {
                        walk_chain(first & SB_SLOT_NUMBER, records,
                                   [&](std::uint32_t link, const sb_record&) { result.push_back(link); });
                }
        }
        return result;
}

std::uint64_t newest_of(const Targets& targets) {
        std::uint64_t newest = 0;
        for (std::size_t which = 0; which < kWhich; which++) {
                const auto& slots = slots_of(targets, which);
                // One that does not fit leaves all of them to the record: they must change in one store.
                if (std::ranges::any_of(slots, [](Slot slot) { return slot >= SB_NEWEST_REMEMBERED; })) {
                        return 0;
                }
                std::uint64_t word = 0;
                if (which >= kFirstOfUdp && remembered_of(targets) != 0) {
                        word = SB_NEWEST_REMEMBERED;
                } else if (!slots.empty() && !targets.share && !targets.reuse_port) {
                        word = slots.front();
                }
                newest |= word << (which * 16);
        }
        return newest;
}

}  // namespace sockbroker
