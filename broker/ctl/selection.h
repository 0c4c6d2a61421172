// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which services and bindings the arguments of a verb mean: names and patterns (fnmatch(3)), for bindings addresses and
// prefixes too. Nothing given means all. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"
#include "broker/ctl/render.h"

namespace sockbroker::ctl {

// An address, or ADDRESS/LEN.
[[nodiscard]] bool is_prefix(std::string_view text);

class Selection {
public:
        explicit Selection(const std::vector<std::string>& arguments) : names_(arguments) {}
        // For bindings: what reads as an address or a prefix is one.
        [[nodiscard]] static Selection of_bindings(const std::vector<std::string>& arguments);

        [[nodiscard]] bool all() const { return names_.empty() && prefixes_.empty(); }
        [[nodiscard]] bool takes_service(const std::string& name) const;
        // A binding, too, that covers some address of a prefix that is asked for.
        [[nodiscard]] bool takes_binding(const Json& row) const;
        [[nodiscard]] bool takes_binding(const std::string& service, std::string_view prefix,
                                         std::string_view source = {}) const;  // empty: any
        // Arguments that are names, no patterns, and not among those.
        [[nodiscard]] std::vector<std::string> missing(const std::vector<std::string>& services) const;

private:
        std::vector<std::string> names_;
        std::vector<Prefix> prefixes_;
};

}  // namespace sockbroker::ctl
