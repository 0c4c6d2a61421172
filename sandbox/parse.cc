// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See parse.h.
#include "sandbox/parse.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "sandbox/statement.h"

namespace sockbroker::sandbox {

namespace {

constexpr unsigned kMaxIncludes = 4;

class Assembler {
public:
        Assembler(Profile& profile, std::vector<Diagnostic>& errors, const FindProfile& find)
                : profile_(profile), errors_(errors), find_(find) {}

        void add(const ProfileFile& file, unsigned depth) {
                std::map<std::string, Rule, std::less<>> said;  // by this file
                std::set<Setting::Key> set;
                bool first = true;
                unsigned number = 0;
                for (std::string_view rest = file.text; !rest.empty();) {
                        const auto end = rest.find('\n');
                        const std::string_view line = rest.substr(0, end);
                        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
                        ++number;
                        auto statement = parse_statement(line);
                        if (!statement) {
                                errors_.push_back({file.path, number, statement.error()});
                                first = false;
                                continue;
                        }
                        if (std::holds_alternative<std::monostate>(statement->what)) {
                                continue;
                        }
                        std::string fault;
                        if (const auto* const include = std::get_if<Include>(&statement->what)) {
                                fault = first ? follow(*include, depth)
                                              : "\"include\" is the first line, and there is one";
                        } else if (const auto* const setting = std::get_if<Setting>(&statement->what)) {
                                fault = set.insert(setting->key).second ? ""
                                                                        : "this was said in an earlier line already";
                                apply(*setting);
                        } else if (const auto* const calls = std::get_if<Calls>(&statement->what)) {
                                fault = note(said, *calls, {calls->conditions, file.path, number, statement->comment});
                        }
                        if (!fault.empty()) {
                                errors_.push_back({file.path, number, fault});
                        }
                        first = false;
                }
                for (auto& [call, rule] : said) {
                        merge(profile_.rules[call], std::move(rule));
                }
        }

private:
        std::string follow(const Include& include, unsigned depth) {
                if (depth >= kMaxIncludes) {
                        return fmt::format("profiles include each other more than {} deep", kMaxIncludes);
                }
                const Result<ProfileFile> found = find_(include.profile);
                if (!found) {
                        return found.error().text();
                }
                add(*found, depth + 1);
                return "";
        }

        void apply(const Setting& setting) {
                switch (setting.key) {
                case Setting::Key::kUnnamed:
                        profile_.unnamed = setting.action;
                        break;
                case Setting::Key::kArguments:
                        profile_.arguments = setting.action;
                        break;
                case Setting::Key::kForeign:
                        profile_.foreign = setting.action;
                        break;
                }
        }

        // What this line says of its calls, beside what the file has said of them.
        static std::string note(std::map<std::string, Rule, std::less<>>& said, const Calls& calls, const Line& line) {
                for (const std::string& call : calls.calls) {
                        auto [at, fresh] = said.try_emplace(call, Rule{calls.action, {}});
                        Rule& rule = at->second;
                        if (!fresh && (!rule.conditional() || line.conditions.empty())) {
                                return fmt::format("line {} says of \"{}\" already: {}{}", rule.lines.front().number,
                                                   call, rule.action.to_string(),
                                                   rule.conditional() ? " with conditions, which this would undo" : "");
                        }
                        rule.lines.push_back(line);
                }
                return "";
        }

        static void merge(Rule& into, Rule&& later) {
                const bool adds = into.action.kind == ActionKind::kAllow && later.action.kind == ActionKind::kAllow;
                if (!adds || into.lines.empty()) {
                        into = std::move(later);
                        return;
                }
                into.lines.insert(into.lines.end(), later.lines.begin(), later.lines.end());
        }

        Profile& profile_;
        std::vector<Diagnostic>& errors_;
        const FindProfile& find_;
};

}  // namespace

std::string Diagnostic::to_string() const {
        return line == 0 ? fmt::format("{}: {}", file, message) : fmt::format("{}:{}: {}", file, line, message);
}

ParsedProfile parse_profile(const std::string& name, const std::vector<ProfileFile>& files, const FindProfile& find) {
        Profile profile{.name = name};
        std::vector<Diagnostic> errors;
        Assembler assembler(profile, errors, find);
        for (const ProfileFile& file : files) {
                assembler.add(file, 0);
        }
        if (errors.empty() && profile.rules.empty()) {
                errors.push_back({files.empty() ? name : files.front().path, 0, "the profile names no call"});
        }
        if (!errors.empty()) {
                return {std::nullopt, std::move(errors)};
        }
        return {std::move(profile), {}};
}

}  // namespace sockbroker::sandbox
