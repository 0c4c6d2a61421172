// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The JSON lines of long answers. Field names and their order are contracts.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/daemon/policy_status.h"
#include "broker/daemon/route_plan.h"
#include "broker/dataplane/dataplane.h"
#include "broker/policy/parse.h"
#include "broker/policy/policy.h"
#include "broker/protocol/result_code.h"
#include "broker/registry/registry.h"

namespace sockbroker {

// Gives one or more whole lines a call, nothing at the end: an answer is made as fast as it is read, and never
// kept whole. A refusal: it ends before its time, and that is its result.
using Rows = std::function<std::expected<std::optional<std::string>, Refusal>()>;

[[nodiscard]] Rows rows_of_lines(std::string lines);

// {service, protocol, family, cookie, bound, unit, uid, pid, state, since}, and flows where there is a number of them
[[nodiscard]] std::string list_line(const std::string& service, const Registration& registration, bool live,
                                    std::optional<std::uint32_t> flows = {});
// {service, protocol, prefix, ports, source, interface, when_absent, file, line, lookups, no_socket}; the last two are
// null where the service is not counted binding by binding
[[nodiscard]] std::string binding_line(const Policy& policy, const Service& service, const Binding& binding,
                                       const ClientFilter& client, const std::optional<BindingCounters>& counters);
// The same without counters.
[[nodiscard]] std::string met_binding_line(const Policy& policy, const Service& service, const Binding& binding,
                                           const ClientFilter& client);
// Of an answer to diff: {kind, change, service, from, protocol, prefix, ports, source, interface, when_absent, file,
// line}; `from` is the service that has a moved binding now. Prefix is null for ports alone of both families.
[[nodiscard]] std::string changed_binding_line(std::string_view change, const std::string& from, bool both_families,
                                               const Policy& policy, const Service& service, const Binding& binding,
                                               const ClientFilter& client);
// {kind, change, service, settings}
[[nodiscard]] std::string changed_settings_line(const std::string& service, const std::vector<std::string>& keys);
// {kind, change, why} and the fields of list_line()
[[nodiscard]] std::string gone_socket_line(const std::string& service, const Registration& registration, bool live,
                                           std::string_view why);
// The same of an answer to reload: those of a diagnostic without a place too, as all its other rows have.
[[nodiscard]] std::string lost_socket_line(const std::string& service, const Registration& registration, bool live,
                                           std::string_view why);

struct SocketCount {
        std::size_t live = 0;
        std::size_t held = 0;
        std::size_t draining = 0;
};
struct BindingCount {
        std::size_t all = 0;
        std::size_t without_socket = 0;  // no socket of their protocol and family is there
};
// {service, sockets, lookups, assigned, no_socket, errors, live, held, draining, bindings, reply_conflicts, announced,
// drained, bindings_without_socket}; announced is null where policy does not ask for it
[[nodiscard]] std::string counters_line(const std::string& service, const SocketCount& sockets,
                                        const ServiceCounters& counters, const BindingCount& bindings,
                                        std::optional<bool> announced, bool drained);
// {file, line, severity, message}, a line each; null: none. Then lines that are made already.
[[nodiscard]] Rows diagnostic_rows(std::shared_ptr<const std::vector<Diagnostic>> diagnostics, std::string last = {});

using RefusalCounts = std::array<std::uint64_t, static_cast<std::size_t>(ResultCode::kInternal) + 1>;  // by result

struct BrokerStatus {
        PolicyStatus policy;
        bool dispatches = true;  // lookups come to the program
        std::int64_t since_usec = 0;
        std::size_t policy_files = 0;
        std::size_t policy_services = 0;
        std::size_t policy_bindings = 0;
        std::int64_t policy_since_usec = 0;
        std::size_t live = 0;
        std::size_t draining = 0;
        std::size_t held = 0;
        Capacity capacity;
        std::uint64_t gone = 0;
        std::uint64_t refused = 0;
        std::uint64_t connections_refused = 0;  // by the door
        std::uint64_t journal_lost = 0;
        std::vector<std::string> warnings;  // of the host, to people
        RefusalCounts refusals{};
        RouteSum routes;
};
[[nodiscard]] std::string status_line(const BrokerStatus& status);

}  // namespace sockbroker
