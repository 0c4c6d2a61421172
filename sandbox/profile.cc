// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See profile.h.
#include "sandbox/profile.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

namespace sockbroker::sandbox {

std::string Action::to_string() const {
        switch (kind) {
        case ActionKind::kAllow:
                return "allow";
        case ActionKind::kLog:
                return "log";
        case ActionKind::kKill:
                return "kill";
        case ActionKind::kErrno:
                break;
        }
        const char* const name = ::strerrorname_np(errnum);
        return fmt::format("errno {}", name != nullptr ? name : std::to_string(errnum));
}

bool Condition::holds(const Arguments& arguments) const {
        return std::ranges::binary_search(values, arguments[argument] & mask);
}

bool Rule::conditional() const {
        return action.kind == ActionKind::kAllow &&
               std::ranges::none_of(lines, [](const Line& line) { return line.conditions.empty(); });
}

bool Rule::holds(const Arguments& arguments) const {
        return std::ranges::any_of(lines, [&](const Line& line) {
                return std::ranges::all_of(line.conditions,
                                           [&](const Condition& condition) { return condition.holds(arguments); });
        });
}

Action Profile::decide(std::string_view call, const Arguments& given) const {
        const auto found = rules.find(call);
        if (found == rules.end()) {
                return unnamed;
        }
        const Rule& rule = found->second;
        return rule.action.kind != ActionKind::kAllow || rule.holds(given) ? rule.action : arguments;
}

std::string dump(const Profile& profile) {
        std::string text = fmt::format("default: {}\narguments: {}\nforeign: {}\n", profile.unnamed.to_string(),
                                       profile.arguments.to_string(), profile.foreign.to_string());
        for (const auto& [call, rule] : profile.rules) {
                if (!rule.conditional()) {
                        text += fmt::format("{} {}\n", rule.action.to_string(), call);
                        continue;
                }
                std::vector<std::string> lines;
                for (const Line& line : rule.lines) {
                        std::vector<std::string_view> conditions;
                        conditions.reserve(line.conditions.size());
                        for (const Condition& condition : line.conditions) {
                                conditions.emplace_back(condition.text);
                        }
                        lines.push_back(fmt::format("allow {} {}\n", call, fmt::join(conditions, " and ")));
                }
                std::ranges::sort(lines);
                const auto [first, last] = std::ranges::unique(lines);
                lines.erase(first, last);
                text += fmt::format("{}", fmt::join(lines, ""));
        }
        return text;
}

}  // namespace sockbroker::sandbox
