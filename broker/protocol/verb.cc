// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one table of the names of verbs. Its order is the one in which messages list them.
#include "broker/protocol/verb.h"

#include <array>

namespace sockbroker {
namespace {

struct NamedVerb {
        std::string_view name;
        Verb verb;
};

constexpr std::array kVerbs = {
        NamedVerb{"status", Verb::kStatus},
        NamedVerb{"list", Verb::kList},
        NamedVerb{"bindings", Verb::kBindings},
        NamedVerb{"reload", Verb::kReload},
        NamedVerb{"unregister", Verb::kUnregister},
        NamedVerb{"unload", Verb::kUnload},
        NamedVerb{"version", Verb::kVersion},
        NamedVerb{"hold", Verb::kHold},
        NamedVerb{"drain", Verb::kDrain},
        NamedVerb{"undrain", Verb::kUndrain},
        NamedVerb{"match", Verb::kMatch},
        NamedVerb{"explain", Verb::kExplain},
        NamedVerb{"diff", Verb::kDiff},
        NamedVerb{"keep", Verb::kKeep},
        NamedVerb{"counted", Verb::kCounted},
        NamedVerb{"monitor", Verb::kMonitor},
        NamedVerb{"prepare", Verb::kPrepare},
};

}  // namespace

std::optional<Verb> find_verb(std::string_view name) {
        for (const auto& entry : kVerbs) {
                if (entry.name == name) {
                        return entry.verb;
                }
        }
        return std::nullopt;
}

std::string_view verb_name(Verb verb) {
        for (const auto& entry : kVerbs) {
                if (entry.verb == verb) {
                        return entry.name;
                }
        }
        return {};
}

std::string verb_names() {
        std::string names;
        for (const auto& entry : kVerbs) {
                names += names.empty() ? "" : " ";
                names += entry.name;
        }
        return names;
}

}  // namespace sockbroker
