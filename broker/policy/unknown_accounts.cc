// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one thing said of a policy that depends on the host; asked once for each name.
#include <map>

#include <fmt/format.h>

#include "broker/policy/decide.h"
#include "broker/policy/values.h"

namespace sockbroker {

namespace {

template <class Lookup>
class Checker {
public:
        Checker(std::string_view key, const Lookup& lookup) : key_(key), lookup_(lookup) {}

        void check(const Policy& policy, const std::vector<Matcher>& matchers, std::vector<Diagnostic>& warnings) {
                for (const auto& matcher : matchers) {
                        if (account_number(matcher.value)) {
                                continue;
                        }
                        const auto [known, fresh] = known_.try_emplace(matcher.value, nullptr);
                        if (fresh) {
                                known->second = verdict(matcher.value);
                        }
                        if (known->second != nullptr) {
                                warnings.push_back({policy.files.at(matcher.where.file), matcher.where.line,
                                                    Severity::kWarning,
                                                    fmt::format("{}=: {} {}", key_, matcher.value, known->second)});
                        }
                }
        }

private:
        [[nodiscard]] const char* verdict(const std::string& name) const {
                const AccountAnswer answer = lookup_ ? lookup_(name) : AccountAnswer(std::nullopt);
                if (!answer.answered()) {
                        return "has no answer from this host's directory just now (NSS), so what was known of it "
                               "counts";
                }
                const auto id = answer.id();
                if (!id) {
                        return "does not exist on this host, so it matches nobody";
                }
                return is_overflow_id(*id) ? "stands for ids that the kernel cannot name, so it matches nobody"
                                           : nullptr;
        }

        std::string_view key_;
        const Lookup& lookup_;
        std::map<std::string, const char*, std::less<>> known_;  // what is wrong with a name
};

}  // namespace

std::vector<Diagnostic> unknown_accounts(const Policy& policy, const Accounts& accounts) {
        Checker users("User", accounts.user);
        Checker groups("Group", accounts.group);
        std::vector<Diagnostic> warnings;
        for (const auto& service : policy.services) {
                users.check(policy, service.users, warnings);
                groups.check(policy, service.groups, warnings);
        }
        return warnings;
}

}  // namespace sockbroker
