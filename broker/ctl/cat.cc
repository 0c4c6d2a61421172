// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb cat: the policy files on disk as the broker merges them, or those of some services. Asks no broker.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "broker/base/printable.h"
#include "broker/ctl/named_directory.h"
#include "broker/ctl/render.h"
#include "broker/ctl/selection.h"
#include "broker/ctl/silent_files.h"
#include "broker/ctl/verbs.h"
#include "broker/policy/files.h"

namespace sockbroker::ctl {

namespace {

// Names of the sections of a file; whether they are good is not asked here.
std::set<std::string> services_in(std::string_view text) {
        constexpr std::string_view kBegin = "[Service ";
        std::set<std::string> names;
        while (!text.empty()) {
                const auto line = text.substr(0, text.find('\n'));
                if (line.starts_with(kBegin) && line.ends_with(']')) {
                        names.emplace(line.substr(kBegin.size(), line.size() - kBegin.size() - 1));
                }
                text.remove_prefix(std::min(text.size(), line.size() + 1));
        }
        return names;
}

// What a terminal would obey must not come out of a file that others may have written.
std::string shown(std::string_view text) {
        constexpr std::string_view kKept = "\n\t";
        std::string result;
        while (!text.empty()) {
                const auto part = text.substr(0, text.find_first_of(kKept));
                result += printable(part);
                text.remove_prefix(part.size());
                const auto space = text.substr(0, text.find_first_not_of(kKept));
                result += space;
                text.remove_prefix(space.size());
        }
        return result;
}

}  // namespace

int cat_policy(const Options& options) {
        const auto deadline = deadline_after(Deadline::clock::now(), patience_of(options));
        if (const auto silent = first_silent(options.config_dirs, {}, deadline)) {
                complain(silent->to_string());
                return kExitFailed;
        }
        if (const std::string slip = slip_of_named(options); !slip.empty()) {
                complain(slip);
                return kExitFailed;
        }
        const auto found = read_policy_files(options.config_dirs);
        for (const auto& diagnostic : found.diagnostics) {
                complain(to_line(diagnostic));
        }
        const Selection selection(options.arguments);
        std::set<std::string> known;
        Output output(options);
        JsonArray array(output, options.json);
        bool first = true;
        for (const auto& file : found.files) {
                const auto names = services_in(file.text);
                known.insert(names.begin(), names.end());
                if (!selection.all() && std::ranges::none_of(names, [&](const std::string& name) {
                            return selection.takes_service(name);
                    })) {
                        continue;
                }
                if (options.json != JsonMode::kOff) {
                        array.add({{"file", file.path}, {"text", file.text}});
                } else {
                        output.write(fmt::format("{}# {}\n{}{}", first ? "" : "\n", shown(file.path), shown(file.text),
                                                 file.text.ends_with('\n') || file.text.empty() ? "" : "\n"));
                }
                first = false;
        }
        const auto missing = selection.missing({known.begin(), known.end()});
        const bool whole = missing.empty() && found.diagnostics.empty();
        if (options.json != JsonMode::kOff && (whole || !first)) {
                array.close();  // else the failure is all that there is to print
        }
        for (const auto& name : missing) {
                complain_as("unknown-service", ENOENT, fmt::format("no policy file has a section [Service {}]", name));
        }
        return output.finish(whole ? kExitOk : kExitFailed);
}

}  // namespace sockbroker::ctl
