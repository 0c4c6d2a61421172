// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/policy_source.h"

#include <systemd/sd-id128.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/policy/findings.h"
#include "broker/registry/check_rules.h"

namespace sockbroker {

bool LoadedPolicy::add_errors(std::vector<Diagnostic> more) {
        errors += more.size();
        std::ranges::move(more, std::back_inserter(diagnostics));
        return !more.empty();
}

std::string PolicySource::boot_id() {
        sd_id128_t id = SD_ID128_NULL;
        (void)sd_id128_get_boot(&id);
        std::array<char, SD_ID128_STRING_MAX> text{};
        return sd_id128_to_string(id, text.data());
}

std::vector<Diagnostic> PolicySource::check(const Policy& policy) const {
        return check_rules(policy, limits_.max_bindings);
}

std::string PolicySource::digest() const {
        const auto found = read_policy_files(config_dirs_);
        return found.diagnostics.empty() ? digest_of(found.files) : "";
}

LoadedPolicy PolicySource::load() const {
        auto found = read_policy_files(config_dirs_);
        const auto config = load_broker_config(config_dirs_);
        auto parsed = parse_policy(found.files, limits_, config.config.limits);
        LoadedPolicy loaded{std::move(found.files), std::move(parsed.policy), std::move(found.diagnostics), found.any};
        loaded.digest = digest_of(loaded.files);
        loaded.errors = loaded.diagnostics.size() + parsed.errors;
        for (const auto& path : folders_.out_of_reach()) {
                loaded.errors++;
                loaded.diagnostics.insert(
                        loaded.diagnostics.begin(),
                        {path, 0, Severity::kError,
                         "another file system was mounted over it since the start (a merge of systemd-sysext or "
                         "systemd-confext?), and the broker's sandbox keeps to what was there before: restart "
                         "sockbrokerd, nothing is lost by that"});
        }
        for (auto diagnostic : config.diagnostics) {
                // What is wrong there keeps its default at the next start, and no policy from being taken.
                diagnostic.severity = Severity::kWarning;
                loaded.diagnostics.push_back(std::move(diagnostic));
        }
        std::ranges::move(parsed.diagnostics, std::back_inserter(loaded.diagnostics));
        // Where all interfaces are there, the kernel's rules will be those that are checked here.
        if (loaded.errors == 0 && loaded.policy &&
            !has_all_interfaces(*loaded.policy, find_interfaces(*loaded.policy, interfaces_now()))) {
                loaded.add_errors(check(*loaded.policy));
        }
        if (loaded.errors > 0) {
                loaded.policy.reset();
        } else if (loaded.policy) {
                if (!loaded.supported && read_copy()) {
                        loaded.diagnostics.push_back(
                                {config_dirs_.front() + "/conf.d", 0, Severity::kWarning,
                                 fmt::format("there is no policy file, here or in any other directory, so there is no "
                                             "service; the copy of the last-known-good policy stays in {}",
                                             copy_)});
                }
                std::ranges::move(first_of_each_file(unknown_interfaces(*loaded.policy, interfaces_now())),
                                  std::back_inserter(loaded.diagnostics));
        }
        return loaded;
}

}  // namespace sockbroker
