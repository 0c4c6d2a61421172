// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See change_row.h.
#include "broker/ctl/change_row.h"

#include <fmt/format.h>

#include "broker/base/printable.h"

namespace sockbroker::ctl {

namespace {

std::string describe_changed_binding(const Json& row) {
        std::string text = fmt::format("{} {} {} port {}", cell(row, "service"), cell(row, "protocol"),
                                       cell(row, "prefix", "any"), cell(row, "ports", "*"));
        if (const auto source = cell(row, "source", ""); !source.empty()) {
                text += " from " + source;
        }
        if (const auto interface = cell(row, "interface", ""); !interface.empty()) {
                text += " on " + interface;
        }
        if (const auto from = cell(row, "from", ""); !from.empty()) {
                text += fmt::format(", now of {}", from);
        }
        return text + fmt::format("  # {}:{}", cell(row, "file"), cell(row, "line"));
}

}  // namespace

std::string describe_change(const Json& row) {
        const auto kind = cell(row, "kind");
        if (kind == "binding") {
                const auto change = cell(row, "change");
                return fmt::format("{} {}\n",
                                   change == "added"     ? '+'
                                   : change == "removed" ? '-'
                                                         : '~',
                                   describe_changed_binding(row));
        }
        if (kind == "settings") {
                std::string keys;
                for (const auto& key : row.value("settings", Json::array())) {
                        keys += fmt::format(" {}=", key.is_string() ? printable(key.get<std::string>()) : key.dump());
                }
                return fmt::format("~ {} has other{}\n", cell(row, "service"), keys);
        }
        return fmt::format("! {} loses the {} socket {} of {} (pid {}, uid {}, {}): {}\n", cell(row, "service"),
                           cell(row, "protocol"), cell(row, "bound"), cell(row, "unit", "no unit"), cell(row, "pid"),
                           cell(row, "uid"), cell(row, "state"), cell(row, "why"));
}

}  // namespace sockbroker::ctl
