// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/chains.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "broker/dataplane/compile/port_table.h"

namespace sockbroker {

namespace {

// Up to here a chain costs less than a table: the rules lie in the prefix's own line and one more.
constexpr std::size_t kChainRules = 5;

bool has_condition(const Rule& rule) {
        return rule.ifindex != 0 || (rule.source && rule.source->length != 0);
}

// Has more words than fit into a prefix's own place.
bool is_long(const Rule& rule) {
        return has_condition(rule) || rule.counter != 0;
}

// Once it matches, nothing after it is tried.
bool ends_chain(const Rule& rule) {
        return !has_condition(rule) && rule.absent != Absent::kNext;
}

std::uint32_t absent_bits(Absent absent) {
        const std::uint32_t value = absent == Absent::kRefuse ? SB_ABSENT_REFUSE
                                    : absent == Absent::kPass ? SB_ABSENT_PASS
                                                              : SB_ABSENT_NEXT;
        return value << SB_RULE_ABSENT_SHIFT;
}

sb_condition encode_condition(const Rule& rule) {
        sb_condition result{};
        result.where = rule.ifindex << 8;
        if (rule.source) {
                result.where |= rule.source->length;
                std::memcpy(result.source, rule.source->address.bytes.data(), sizeof result.source);
        }
        return result;
}

}  // namespace

sb_rule encode(const Rule& rule, std::uint32_t next) {
        const unsigned reaches_loopback = rule.prefix.address.family == Family::kIpv4 ? 8 : 16;
        sb_rule result{};
        result.first = rule.ports.first;
        result.last = rule.ports.last;
        result.flags = SB_RULE_USED | rule.service | absent_bits(rule.absent);
        result.flags |= is_long(rule) ? static_cast<std::uint32_t>(SB_RULE_CONDITION) : 0;
        result.flags |= rule.counter != 0 ? static_cast<std::uint32_t>(SB_RULE_COUNTED) : 0;
        result.flags |= rule.prefix.length < reaches_loopback ? static_cast<std::uint32_t>(SB_RULE_SHORT) : 0;
        result.next = next;
        return result;
}

bool tried_before(const Rule& a, const Rule& b) {
        const auto rank = [](const Rule& rule) {
                return std::tuple(rule.ports.width(), rule.source ? -int{rule.source->length} : 0, rule.ifindex == 0,
                                  rule.source ? rule.source->address.bytes : std::array<std::uint8_t, 16>{},
                                  rule.ifindex, rule.ports.first);
        };
        return rank(a) < rank(b);
}

std::uint32_t ChainWriter::append_words(std::size_t words, bool condition) {
        const bool fits = pool_words_ + words <= SB_LINE_WORDS && (!condition || pool_words_ <= SB_CONDITION_WORD);
        if (!fits) {
                pool_ = lines_.size();
                pool_words_ = 0;
                lines_.resize(pool_ + 1);
        }
        const std::size_t reference = pool_ * SB_LINE_WORDS + pool_words_;
        pool_words_ += words;
        return static_cast<std::uint32_t>(reference);
}

std::uint32_t ChainWriter::append(const Rule& rule, std::uint32_t next) {
        const sb_rule encoded = encode(rule, next);
        const bool condition = is_long(rule);
        const std::size_t source_words = rule.prefix.address.family == Family::kIpv4 ? 1 : 4;
        const std::size_t counter_words = rule.counter != 0 ? 1 : 0;
        const std::uint32_t reference = append_words(condition ? 4 + source_words + counter_words : 3, condition);
        std::uint32_t* words = lines_[reference / SB_LINE_WORDS].words + reference % SB_LINE_WORDS;
        std::memcpy(words, &encoded, sizeof encoded);
        if (condition) {
                const sb_condition extra = encode_condition(rule);
                std::memcpy(words + 3, &extra, (1 + source_words) * 4);
                if (rule.counter != 0) {
                        words[4 + source_words] = rule.counter;
                }
        }
        return reference;
}

// All rules one after another, from the last, since each names its successor.
sb_rule ChainWriter::chain(std::span<const Rule* const> rules, std::uint32_t covering, std::uint32_t& steps) {
        const bool inline_first = !is_long(*rules.front());
        std::uint32_t next = covering;
        for (std::size_t i = rules.size(); i > (inline_first ? 1 : 0); i--) {
                next = append(*rules[i - 1], next);
        }
        steps = static_cast<std::uint32_t>(rules.size());
        if (inline_first) {
                return encode(*rules.front(), next);
        }
        // A prefix's own place has no room for a condition: there stands a rule that no port matches.
        steps++;
        sb_rule jump = encode(*rules.front(), next);
        jump.flags &= ~static_cast<std::uint32_t>(SB_RULE_CONDITION | SB_RULE_COUNTED);
        jump.first = 1;
        jump.last = 0;
        return jump;
}

// False: chains of many conditional rules would have to be copied too often; then one chain of all is the lesser evil.
bool ChainWriter::port_table(std::span<const Rule* const> rules, std::uint32_t covering, std::uint32_t& steps,
                             sb_rule& result) {
        std::vector<std::tuple<std::uint32_t, bool, std::uint32_t>> events;  // port, starts, index of the rule
        for (std::uint32_t i = 0; i < rules.size(); i++) {
                events.emplace_back(rules[i]->ports.first, true, i);
                events.emplace_back(rules[i]->ports.last + 1U, false, i);
        }
        std::sort(events.begin(), events.end());

        std::vector<std::uint16_t> starts{0};
        std::vector<std::uint32_t> references{covering};
        std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> written;  // rule, next -> reference
        std::set<std::uint32_t> active;                                            // in the order of precedence
        std::vector<std::uint32_t> tried;
        std::size_t longest = 0;
        for (std::size_t i = 0; i < events.size();) {
                const std::uint32_t port = std::get<0>(events[i]);
                for (; i < events.size() && std::get<0>(events[i]) == port; i++) {
                        const auto [where, starting, rule] = events[i];
                        if (starting) {
                                active.insert(rule);
                        } else {
                                active.erase(rule);
                        }
                }
                if (port > 65535) {
                        break;
                }
                tried.clear();
                for (const std::uint32_t rule : active) {
                        tried.push_back(rule);
                        if (ends_chain(*rules[rule])) {
                                break;
                        }
                }
                longest = std::max(longest, tried.size());
                std::uint32_t next = covering;
                for (auto rule = tried.rbegin(); rule != tried.rend(); ++rule) {
                        auto [place, fresh] = written.try_emplace({*rule, next}, 0);
                        if (fresh) {
                                if (written.size() > 3 * rules.size() || lines_.overflowed() ||
                                    longest > SB_MAX_STEPS) {
                                        return false;
                                }
                                place->second = append(*rules[*rule], next);
                        }
                        next = place->second;
                }
                if (next != references.back()) {
                        starts.push_back(static_cast<std::uint16_t>(port));
                        references.push_back(next);
                }
        }

        result = encode(*rules.front(), write_port_table(lines_, starts, references));
        result.flags &= ~static_cast<std::uint32_t>(SB_RULE_CONDITION | SB_RULE_COUNTED);
        result.flags |= SB_RULE_PORTS;
        result.first = static_cast<std::uint16_t>(starts.size() - 1);
        result.last = 0;
        steps = static_cast<std::uint32_t>(longest) + 1;
        return true;
}

Result<sb_rule> ChainWriter::write(std::span<const Rule* const> rules, std::uint32_t covering, std::uint32_t& steps) {
        sb_rule result{};
        if (rules.size() > kChainRules) {
                const std::size_t lines = lines_.size();
                const auto pool = std::pair(pool_, pool_words_);
                if (port_table(rules, covering, steps, result) && steps <= SB_MAX_STEPS) {
                        return result;
                }
                // What port_table() wrote into a line that was there before is overwritten; nobody refers to it.
                lines_.resize(lines);
                std::tie(pool_, pool_words_) = pool;
        }
        result = chain(rules, covering, steps);
        if (steps > SB_MAX_STEPS) {
                return fail(
                        fmt::format("cannot compile {} rules of {}: at most {} can be tried for one packet; merge "
                                    "source prefixes or interfaces",
                                    rules.size(), rules.front()->prefix.to_string(), int{SB_MAX_STEPS}));
        }
        return result;
}

}  // namespace sockbroker
