// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See statement.h.
#include "sandbox/statement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "sandbox/constants.h"

namespace sockbroker::sandbox {

namespace {

constexpr std::size_t kMaxLine = 4096;

template <class T>
using Parsed = std::expected<T, std::string>;

template <class... Arguments>
std::unexpected<std::string> mistake(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
        return std::unexpected(fmt::format(text, std::forward<Arguments>(arguments)...));
}

bool is_word(char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':' ||
               c == '-' || c == '.';
}

// The words and signs of a line, taken one after the other.
class Tokens {
public:
        static Parsed<Tokens> cut(std::string_view line) {
                Tokens tokens;
                for (std::size_t at = 0; at < line.size();) {
                        if (line[at] == ' ' || line[at] == '\t') {
                                ++at;
                                continue;
                        }
                        std::size_t size = 1;
                        if (is_word(line[at])) {
                                while (at + size < line.size() && is_word(line[at + size])) {
                                        ++size;
                                }
                        } else if (line.substr(at).starts_with("==") || line.substr(at).starts_with("!&")) {
                                size = 2;
                        } else if (std::string_view("{},|&").find(line[at]) == std::string_view::npos) {
                                return mistake(
                                        "\"{}\" in column {} has no meaning here; conditions are ==, in {{...}}, "
                                        "& MASK == and !& MASK",
                                        line[at], at + 1);
                        }
                        tokens.tokens_.push_back(line.substr(at, size));
                        at += size;
                }
                return tokens;
        }

        [[nodiscard]] bool empty() const { return at_ == tokens_.size(); }
        [[nodiscard]] std::string_view peek() const { return empty() ? "" : tokens_[at_]; }
        std::string_view next() { return empty() ? "" : tokens_[at_++]; }
        bool take(std::string_view wanted) {
                if (peek() != wanted) {
                        return false;
                }
                ++at_;
                return true;
        }
        [[nodiscard]] std::string next_for_person() const {
                return empty() ? "the end of the line" : fmt::format("\"{}\"", peek());
        }

private:
        std::vector<std::string_view> tokens_;
        std::size_t at_ = 0;
};

std::optional<std::uint64_t> number(std::string_view text) {
        const int base = text.starts_with("0x") ? 16 : 10;
        text.remove_prefix(base == 16 ? 2 : 0);
        std::uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
        return error == std::errc{} && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

struct Value {
        std::uint64_t value = 0;
        std::string text;
};

Parsed<Value> take_value(Tokens& tokens) {
        Value all;
        do {
                const std::string_view word = tokens.next();
                const auto value = number(word).or_else([&] { return constant(word); });
                if (!value) {
                        return mistake("\"{}\" is neither a number nor a constant that profiles know", word);
                }
                all.value |= *value;
                all.text += fmt::format("{}{}", all.text.empty() ? "" : "|", word);
        } while (tokens.take("|"));
        return all;
}

Parsed<std::vector<Value>> take_set(Tokens& tokens) {
        std::vector<Value> values;
        if (!tokens.take("{")) {
                return mistake("\"in\" is followed by {{VALUE, ...}}, not by {}", tokens.next_for_person());
        }
        do {
                auto value = take_value(tokens);
                if (!value) {
                        return std::unexpected(value.error());
                }
                values.push_back(std::move(*value));
        } while (tokens.take(","));
        if (!tokens.take("}")) {
                return mistake("values in {{}} are separated by commas, {} is unexpected", tokens.next_for_person());
        }
        return values;
}

bool is_argument(std::string_view word) {
        return word.starts_with("arg");
}

// argN or argN:64.
Parsed<Condition> take_argument(Tokens& tokens) {
        Condition condition;
        std::string_view word = tokens.next();
        condition.text = word;
        if (word.ends_with(":64")) {
                word.remove_suffix(3);
                condition.mask = ~std::uint64_t{0};
        }
        if (word.size() != 4 || !is_argument(word) || word[3] < '0' || word[3] > '5') {
                return mistake("\"{}\" is no argument, they are arg0 to arg5 (arg0:64 for all 64 bits of it)", word);
        }
        condition.argument = static_cast<unsigned>(word[3] - '0');
        return condition;
}

Parsed<Condition> finish(Condition condition, const std::vector<Value>& values) {
        for (const Value& value : values) {
                if ((value.value & ~condition.mask) != 0) {
                        return mistake("{} never holds: {} has bits outside {:#x}", condition.text, value.text,
                                       condition.mask);
                }
                condition.values.push_back(value.value);
        }
        std::ranges::sort(condition.values);
        if (std::ranges::adjacent_find(condition.values) != condition.values.end()) {
                return mistake("{} names a value twice", condition.text);
        }
        return condition;
}

Parsed<Condition> take_condition(Tokens& tokens) {
        auto condition = take_argument(tokens);
        if (!condition) {
                return condition;
        }
        const std::uint64_t whole = condition->mask;
        const bool none = tokens.take("!&");
        if (none || tokens.take("&")) {
                const auto mask = take_value(tokens);
                if (!mask) {
                        return std::unexpected(mask.error());
                }
                if (mask->value == 0 || (mask->value & ~whole) != 0) {
                        return mistake("the mask {} {}", mask->text,
                                       mask->value == 0 ? "has no bit" : "has more than 32 bits, which needs argN:64");
                }
                condition->mask = mask->value;
                condition->text += fmt::format(" {} {}", none ? "!&" : "&", mask->text);
        }
        if (none) {
                condition->values = {0};
                return condition;
        }
        if (tokens.take("==")) {
                const auto value = take_value(tokens);
                if (!value) {
                        return std::unexpected(value.error());
                }
                condition->text += fmt::format(" == {}", value->text);
                return finish(std::move(*condition), {*value});
        }
        if (tokens.take("in")) {
                const auto values = take_set(tokens);
                if (!values) {
                        return std::unexpected(values.error());
                }
                std::vector<std::string_view> texts;
                for (const Value& value : *values) {
                        texts.emplace_back(value.text);
                }
                condition->text += fmt::format(" in {{{}}}", fmt::join(texts, ", "));
                return finish(std::move(*condition), *values);
        }
        return mistake("{} is followed by ==, in, & or !&, not by {}", condition->text, tokens.next_for_person());
}

Parsed<Action> take_action(Tokens& tokens) {
        const std::string_view word = tokens.next();
        if (word == "allow") {
                return Action{ActionKind::kAllow};
        }
        if (word == "log") {
                return Action{ActionKind::kLog};
        }
        if (word == "kill") {
                return Action{ActionKind::kKill};
        }
        if (word != "errno") {
                return mistake("\"{}\" is no action, they are allow, log, errno NAME and kill", word);
        }
        const auto errnum = errno_of(tokens.peek());
        if (!errnum) {
                return mistake("\"errno\" is followed by a name as in errno(3), not by {}", tokens.next_for_person());
        }
        tokens.next();
        return Action{ActionKind::kErrno, *errnum};
}

Parsed<Setting> take_setting(Setting::Key key, Tokens& tokens) {
        const auto action = take_action(tokens);
        if (!action) {
                return std::unexpected(action.error());
        }
        if (action->kind == ActionKind::kAllow) {
                return mistake("a profile names what it allows, so this cannot be \"allow\"; \"log\" is for a trial");
        }
        if (!tokens.empty()) {
                return mistake("{} after the action", tokens.next_for_person());
        }
        return Setting{key, *action};
}

Parsed<Calls> take_calls(Tokens& tokens) {
        Calls calls;
        if (auto action = take_action(tokens)) {
                calls.action = *action;
        } else {
                return std::unexpected(action.error());
        }
        while (!tokens.empty() && !is_argument(tokens.peek())) {
                const std::string name(tokens.next());
                if (kind_of_call(name) == CallKind::kNowhere) {
                        return mistake("\"{}\" is a system call of no architecture", name);
                }
                if (std::ranges::find(calls.calls, name) != calls.calls.end()) {
                        return mistake("\"{}\" stands twice on this line", name);
                }
                calls.calls.push_back(name);
        }
        if (calls.calls.empty()) {
                return mistake("a system call is missing after {}", calls.action.to_string());
        }
        if (tokens.empty()) {
                return calls;
        }
        if (calls.calls.size() > 1 || calls.action.kind != ActionKind::kAllow) {
                return mistake(
                        "conditions go with \"allow\" and one call; what no line allows gets the action after "
                        "\"arguments:\"");
        }
        do {
                auto condition = take_condition(tokens);
                if (!condition) {
                        return std::unexpected(condition.error());
                }
                if (std::ranges::find(calls.conditions, condition->argument, &Condition::argument) !=
                    calls.conditions.end()) {
                        return mistake("arg{} stands twice on this line, use in {{...}} or a mask",
                                       condition->argument);
                }
                calls.conditions.push_back(std::move(*condition));
        } while (tokens.take("and"));
        if (!tokens.empty()) {
                return mistake("conditions are joined by \"and\", not by {}", tokens.next_for_person());
        }
        return calls;
}

std::string_view trimmed(std::string_view text) {
        const auto first = text.find_first_not_of(" \t");
        return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

Parsed<Include> take_include(Tokens& tokens) {
        const std::string_view name = tokens.next();
        if (!valid_profile_name(name) || !tokens.empty()) {
                return mistake(
                        "\"include\" is followed by the name of one profile, without its directory and .profile");
        }
        return Include{std::string(name)};
}

}  // namespace

bool valid_profile_name(std::string_view name) {
        return !name.empty() && name.size() <= 40 && name.front() != '-' && name.front() != '_' &&
               std::ranges::all_of(name, [](char c) { return is_word(c) && c != ':' && c != '.'; });
}

Parsed<Statement> parse_statement(std::string_view line) {
        if (line.size() > kMaxLine) {
                return mistake("the line has more than {} bytes", kMaxLine);
        }
        const auto bad = std::ranges::find_if(
                line, [](char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == '\x7f'; });
        if (bad != line.end()) {
                return mistake("byte {:#04x} in column {}", static_cast<unsigned char>(*bad), bad - line.begin() + 1);
        }
        Statement statement;
        if (const auto hash = line.find('#'); hash != std::string_view::npos) {
                statement.comment = trimmed(line.substr(hash + 1));
                line = line.substr(0, hash);
        }
        auto tokens = Tokens::cut(line);
        if (!tokens) {
                return std::unexpected(tokens.error());
        }
        const auto put = [&](auto parsed) -> Parsed<Statement> {
                if (!parsed) {
                        return std::unexpected(parsed.error());
                }
                statement.what = std::move(*parsed);
                return statement;
        };
        if (tokens->empty()) {
                return statement;
        }
        if (tokens->take("include")) {
                return put(take_include(*tokens));
        }
        if (tokens->take("default:")) {
                return put(take_setting(Setting::Key::kUnnamed, *tokens));
        }
        if (tokens->take("arguments:")) {
                return put(take_setting(Setting::Key::kArguments, *tokens));
        }
        if (tokens->take("foreign:")) {
                return put(take_setting(Setting::Key::kForeign, *tokens));
        }
        return put(take_calls(*tokens));
}

}  // namespace sockbroker::sandbox
