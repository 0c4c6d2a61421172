// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Compiles rules and walks what comes of it by bpf/walk.h, the very lines that the kernel runs. For the unit tests of
// the compiler, one of them in a program: the walk calls functions without an argument for the rules.
#pragma once

#include <linux/bpf.h>

#include <array>
#include <functional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "bpf/walk.h"
#include "broker/dataplane/compile/compile.h"
#include "tests/support/lookup.h"
#include "tests/support/oracle.h"

struct CompiledRules {
        std::vector<sb_line> lines;      // from the start of the generation
        std::array<sb_table, 4> tables;  // by SB_WHICH()
};

inline const CompiledRules* walked = nullptr;
inline std::uint32_t walked_generation = 0;
inline const std::function<bool(sockbroker::ServiceId)>* walked_live = nullptr;
inline sockbroker::ServiceId last_tried = 0;
inline unsigned tries = 0;
inline std::set<__u32> lines_read;  // each once: again it is in the cache
inline unsigned tables_read = 0;
inline constexpr std::uint32_t kLines = 1 << 22;  // of a generation; the second begins there

// Every second time each, so that all ways are compared with the oracle.
inline bool newest_takes = false;
inline bool remembered_takes = false;

// While it lives, the program walks these rules.
struct Walk {
        Walk(const CompiledRules& rules, std::uint32_t generation) {
                walked = &rules;
                walked_generation = generation;
        }
        Walk(const Walk&) = delete;
        Walk& operator=(const Walk&) = delete;
        ~Walk() { walked = nullptr; }
};

// Counters of rules of their own, in the order in which they counted.
inline std::vector<std::pair<std::uint32_t, bool>> counted;

// What the program has maps and helpers for.
inline const sb_line* sb_line_at(__u32 index) {
        lines_read.insert(index);
        const __u32 base = walked_generation != 0 ? kLines : 0;
        return index - base < walked->lines.size() ? &walked->lines[index - base] : nullptr;
}

inline const sb_table* sb_table_at(__u32 index) {
        tables_read = 1;  // again in each function, but it is the same
        return &walked->tables.at(index - (walked_generation != 0 ? 4 : 0));
}

inline int every_second_time(bool& takes, __u32 service) {
        takes = !takes;
        if (!takes || !(*walked_live)(service)) {
                return 0;
        }
        last_tried = service;
        tries++;
        return 1;
}

inline int sb_deliver_newest(bpf_sk_lookup*, __u32, __u32 service) {
        return every_second_time(newest_takes, service);
}

inline int sb_deliver_remembered(bpf_sk_lookup*, __u32, __u32 service) {
        return every_second_time(remembered_takes, service);
}

inline int sb_deliver(bpf_sk_lookup*, __u32, __u32 service) {
        last_tried = service;
        tries++;
        return (*walked_live)(service) ? 1 : 0;
}

inline void sb_count(__u32 counter, int delivered) {
        counted.emplace_back(counter, delivered != 0);
}

namespace sockbroker {

using oracle::Answer;
using oracle::Packet;
using oracle::Verdict;

inline constexpr std::size_t kRoom = 1 << 20;
inline constexpr std::uint32_t kMostBindings = 1000000;

// Compiles in one piece of memory for all, of which only what was written is copied: under MALLOC_PERTURB_ a new room
// for each would take longer than all tests.
inline Result<CompiledRules> compile_rules(const std::vector<Rule>& rules, std::size_t max_lines) {
        static std::vector<sb_line> room(std::max<std::size_t>(kRoom, lines_for(kMostBindings)));
        CompiledRules result{};
        const auto size = compile_into(rules, std::span(room).first(max_lines), result.tables);
        if (!size) {
                return std::unexpected(size.error());
        }
        result.lines.assign(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(*size));
        return result;
}

inline Answer walk(const CompiledRules& compiled, const Packet& packet, const std::function<bool(ServiceId)>& live,
                   std::uint32_t generation = 0) {
        bpf_sk_lookup ctx = context_of(packet);
        ctx.ingress_ifindex = packet.ifindex;
        const Walk walk(compiled, generation);
        walked_live = &live;
        last_tried = 0;
        tries = 0;
        lines_read.clear();
        counted.clear();
        tables_read = 0;
        const int verdict = sb_walk(&ctx, generation, kLines);
        if (tries == 0 || (verdict == SK_PASS && last_tried != 0 && !live(last_tried))) {
                // Passed on: by a rule that says so, or because nothing was left; the oracle tells these apart below.
                return {Verdict::kPass, 0};
        }
        return {verdict == SK_DROP ? Verdict::kRefused : Verdict::kSocket, last_tried};
}

inline Answer expected(const std::vector<Rule>& rules, const Packet& packet,
                       const std::function<bool(ServiceId)>& live) {
        Answer answer = oracle::ask(rules, packet, live);
        if (answer.verdict == Verdict::kPass) {
                answer.service = 0;
        }
        return answer;
}

inline bool all_live(ServiceId) {
        return true;
}

inline Rule rule(std::string_view prefix, PortRange ports, ServiceId service, Absent absent = Absent::kRefuse) {
        return rule(Protocol::kUdp, prefix, ports, service, absent);
}

inline Packet packet(std::string_view to, std::uint16_t port, std::string_view from = "", std::uint32_t ifindex = 0) {
        Packet result = packet(Protocol::kUdp, to, port);
        result.ifindex = ifindex;
        result.from = from.empty() ? result.to : *parse_address(from);
        return result;
}

}  // namespace sockbroker
