// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/diagnostics.h"

#include <algorithm>
#include <span>
#include <string_view>

#include <fmt/format.h>

namespace sockbroker {

std::string count_errors(std::size_t errors) {
        return fmt::format("{} error{}", errors, errors == 1 ? "" : "s");
}

std::string first_error(const std::vector<Diagnostic>& diagnostics) {
        constexpr std::size_t kShown = 300;
        const auto first = std::ranges::find(diagnostics, Severity::kError, &Diagnostic::severity);
        if (first == diagnostics.end()) {
                return {};
        }
        const auto text = first->to_string();
        return fmt::format(" (the first: {}{})", std::string_view(text).substr(0, kShown),
                           text.size() > kShown ? "..." : "");
}

// The first in full, for each is an entry of its own and the writer's queue is short; who wants all of them asks
// `sockbrokerctl verify`.
void tell_diagnostics(Audit& audit, const std::vector<Diagnostic>& all, std::size_t errors) {
        static constexpr std::size_t kInJournal = 100;
        const auto told = std::min(all.size(), kInJournal);
        for (const auto& diagnostic : std::span(all).first(told)) {
                const bool error = diagnostic.severity == Severity::kError;
                audit.write({.action = Action::kDiagnostic,
                             .priority = error ? 3 : 4,
                             .message = diagnostic.to_string(),
                             .rule = diagnostic.line == 0 ? diagnostic.file
                                                          : fmt::format("{}:{}", diagnostic.file, diagnostic.line)});
        }
        if (told < all.size()) {
                audit.note(
                        errors > 0 ? 3 : 4,
                        fmt::format("only the first {} of {} are written here: sockbrokerctl verify lists more", told,
                                    errors > 0 ? fmt::format("{} errors, and warnings", errors)
                                               : fmt::format("{} warnings", all.size())));
        }
}

}  // namespace sockbroker
