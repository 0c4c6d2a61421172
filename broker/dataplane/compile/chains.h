// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The rules of one prefix, in their order, to what the program walks: a chain, or, for many rules, a table of port
// intervals with a chain each. Every chain ends in the reference of the covering prefix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "bpf/layout.h"
#include "broker/base/result.h"
#include "broker/dataplane/compile/rule_memory.h"
#include "broker/dataplane/rules.h"

namespace sockbroker {

// The order in which rules of one prefix are tried.
[[nodiscard]] bool tried_before(const Rule& a, const Rule& b);

// The rule as the program reads it, marked where a condition, or that and a counter, must follow.
[[nodiscard]] sb_rule encode(const Rule& rule, std::uint32_t next);

class ChainWriter {
public:
        explicit ChainWriter(RuleMemory& lines) : lines_(lines) {}

        // Writes the chain and returns its first rule, for the bucket of the prefix. `rules` are in the order of
        // tried_before(). `steps` becomes the number of rules tried for the worst packet, without the covering prefix.
        [[nodiscard]] Result<sb_rule> write(std::span<const Rule* const> rules, std::uint32_t covering,
                                            std::uint32_t& steps);

private:
        [[nodiscard]] sb_rule chain(std::span<const Rule* const> rules, std::uint32_t covering, std::uint32_t& steps);
        [[nodiscard]] std::uint32_t append(const Rule& rule, std::uint32_t next);
        [[nodiscard]] std::uint32_t append_words(std::size_t words, bool condition);
        [[nodiscard]] bool port_table(std::span<const Rule* const> rules, std::uint32_t covering, std::uint32_t& steps,
                                      sb_rule& result);

        RuleMemory& lines_;
        std::size_t pool_ = 0;  // the line that is being filled with rules, and how far; 0: none yet
        std::size_t pool_words_ = SB_LINE_WORDS;
};

}  // namespace sockbroker
