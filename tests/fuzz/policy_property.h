// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What must hold of the policy parser for every text whatever, in one place for the fuzzer and for the mutation test
// of the unit suite. The yardstick is a reading of the text that knows nothing of inih and one that is inih alone:
// what they do not agree on must never be taken.
#pragma once

#include <ini.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "broker/policy/conflicts.h"
#include "broker/policy/ini.h"
#include "broker/policy/parse.h"

namespace sockbroker::test {

using Entries = std::vector<std::tuple<std::string, std::string, std::string>>;  // section, key, value

// What the broker takes from the text.
class Taken : public IniSink {
public:
        void section(unsigned, std::string_view name, std::size_t) override { section_ = name; }
        void entry(unsigned line, std::string_view key, std::string_view value) override {
                entries.emplace_back(section_, key, value);
                lines.push_back(line);
        }
        void error(unsigned line, std::string message) override {
                errors.push_back(line);
                messages.push_back(std::move(message));
        }

        Entries entries;
        std::vector<unsigned> lines;
        std::vector<unsigned> errors;
        std::vector<std::string> messages;

private:
        std::string section_;
};

// What inih takes from it, with all its leniency.
inline Entries read_by_inih(const std::string& text) {
        Entries entries;
        const auto handler = [](void* user, const char* section, const char* name, const char* value) {
                static_cast<Entries*>(user)->emplace_back(section, name, value);
                return 1;
        };
        (void)ini_parse_string(text.c_str(), handler, &entries);
        return entries;
}

// What a person takes from it who knows only the four kinds of lines.
inline Entries read_by_eye(std::string_view text) {
        Entries entries;
        std::string section;
        while (!text.empty()) {
                const auto line = text.substr(0, text.find('\n'));
                text.remove_prefix(std::min(line.size() + 1, text.size()));
                const auto equals = line.find('=');
                if (line.starts_with('[')) {
                        section = line.substr(1, line.size() - 2);
                } else if (!line.starts_with('#') && !line.starts_with(';') && equals != std::string_view::npos) {
                        entries.emplace_back(section, line.substr(0, equals), line.substr(equals + 1));
                }
        }
        return entries;
}

// A policy as text of the plainest form.
inline std::string print(const Policy& policy) {
        std::string text;
        const auto matchers = [&](const char* key, const std::vector<Matcher>& values) {
                for (const auto& matcher : values) {
                        text += key + matcher.value + "\n";
                }
        };
        for (const auto& service : policy.services) {
                text += "[Service " + service.name + "]\n";
                matchers("Unit=", service.units);
                matchers("User=", service.users);
                matchers("Group=", service.groups);
                for (const auto& sources : service.sources) {
                        for (const auto& source : sources) {
                                text += "Source=" + source.prefix.to_string() + "\n";
                        }
                }
                matchers("Interface=", service.interfaces);
                for (const auto& binding : service.bindings) {
                        // A bare one stands twice and is written once.
                        if (!binding.bare || binding.prefix.address.family == Family::kIpv4) {
                                text += written(binding) + "\n";
                        }
                }
                text += "WhenAbsent=" + std::string(to_string(service.when_absent)) + "\n";
                text += "Accounting=" + std::string(to_string(service.accounting)) + "\n";
                text += "Handover=" + std::string(to_string(service.handover)) + "\n";
                text += std::string("ReusePort=") + (service.reuse_port ? "yes" : "no") + "\n";
                text += "MaxSockets=" + std::to_string(service.max_sockets) + "\n";
        }
        return text;
}

inline bool has_errors(const ParsedPolicy& parsed) {
        return std::any_of(parsed.diagnostics.begin(), parsed.diagnostics.end(),
                           [](const Diagnostic& diagnostic) { return diagnostic.severity == Severity::kError; });
}

// Why the property is broken; empty if it holds.
inline std::string broken_property(const std::string& text) {
        Taken taken;
        read_ini(text, taken);
        if (taken.errors.empty()) {
                if (taken.entries != read_by_inih(text)) {
                        return "inih reads it differently and it was not refused";
                }
                if (taken.entries != read_by_eye(text)) {
                        return "a person reads it differently and it was not refused";
                }
        }
        for (const auto& message : taken.messages) {
                if (message.find("INI library") != std::string::npos) {
                        return "a line that inih reads differently came past the grammar";
                }
        }
        const auto lines = static_cast<unsigned>(std::count(text.begin(), text.end(), '\n')) + 1;
        const auto parsed = parse_policy({{"x.conf", text}}, {});
        if (parsed.policy.has_value() == has_errors(parsed)) {
                return "a policy with errors, or none without";
        }
        if (!taken.errors.empty() && parsed.policy) {
                return "a line that was refused did not refuse the policy";
        }
        unsigned last = 0;
        for (const auto& diagnostic : parsed.diagnostics) {
                if (diagnostic.line < last || diagnostic.line < 1 || diagnostic.line > lines) {
                        return "a diagnostic out of order or beside the text";
                }
                last = diagnostic.line;
                for (const char c : diagnostic.message) {
                        if ((c < 0x20 && c != '\t') || c > 0x7e) {
                                return "a message with bytes that a terminal may obey";
                        }
                }
        }
        if (parsed.policy) {
                const auto plain = print(*parsed.policy);
                const auto again = parse_policy({{"x.conf", plain}}, {});
                if (!again.policy || print(*again.policy) != plain) {
                        return "no round trip";
                }
        }
        return {};
}

}  // namespace sockbroker::test
