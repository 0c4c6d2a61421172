// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/rows.h"

#include <utility>

#include <fmt/format.h>

#include "broker/base/json_text.h"

namespace sockbroker {

namespace {

using Json = JsonText;

std::string line_of(std::initializer_list<JsonMember> row) {
        return Json(row).text() + "\n";
}

// Lines are objects: the members of one before those of another.
std::string joined(const std::string& first, const std::string& second) {
        return first.substr(0, first.find_last_of('}')) + "," + second.substr(1);
}

Json text_or_null(const std::string& text) {
        return text.empty() ? Json(nullptr) : Json(text);
}

std::string diagnostic_line(const Diagnostic& diagnostic) {
        return line_of({
                {"file", diagnostic.file},
                {"line", diagnostic.line},
                {"severity", diagnostic.severity == Severity::kError ? "error" : "warning"},
                {"message", diagnostic.message},
        });
}

}  // namespace

Rows rows_of_lines(std::string lines) {
        return [lines = std::move(lines), done = false]() mutable -> std::optional<std::string> {
                if (done || lines.empty()) {
                        return std::nullopt;
                }
                done = true;
                return std::move(lines);
        };
}

std::string list_line(const std::string& service, const Registration& registration, bool live,
                      std::optional<std::uint32_t> flows) {
        std::string line = line_of({
                {"service", service},
                {"protocol", to_string(registration.protocol)},
                {"family", to_string(registration.family)},
                {"cookie", fmt::format("{:016x}", registration.cookie)},
                {"bound", registration.bound.to_string()},
                {"unit", text_or_null(registration.registrant.unit)},
                {"uid", registration.registrant.uid},
                {"pid", registration.registrant.pid},
                {"state", registration.held() ? "held"
                          : live              ? "live"
                                              : "draining"},
                {"since", registration.since_usec},
        });
        if (flows) {
                line.insert(line.rfind('}'), fmt::format(",\"flows\":{}", *flows));
        }
        return line;
}

std::string met_binding_line(const Policy& policy, const Service& service, const Binding& binding,
                             const ClientFilter& client) {
        const std::string ports = binding.ports.to_string();
        return line_of({
                {"service", service.name},
                {"protocol", to_string(binding.protocol)},
                {"prefix", binding.bare ? Json(nullptr) : Json(binding.prefix.to_string())},
                {"ports", ports == "*" ? Json(nullptr) : Json(ports)},
                {"source", client.source == nullptr ? Json(nullptr) : Json(client.source->to_string())},
                {"interface", client.interface == nullptr ? Json(nullptr) : Json(client.interface->value)},
                {"when_absent", to_string(service.when_absent)},
                {"file", policy.files[binding.where.file]},
                {"line", binding.where.line},
        });
}

std::string binding_line(const Policy& policy, const Service& service, const Binding& binding,
                         const ClientFilter& client, const std::optional<BindingCounters>& counters) {
        return joined(met_binding_line(policy, service, binding, client),
                      line_of({{"lookups", counters ? Json(counters->lookups) : Json(nullptr)},
                               {"no_socket", counters ? Json(counters->no_socket) : Json(nullptr)}}));
}

std::string changed_binding_line(std::string_view change, const std::string& from, bool both_families,
                                 const Policy& policy, const Service& service, const Binding& binding,
                                 const ClientFilter& client) {
        Binding shown = binding;
        // A source is of one family, and so tells which of the two it is.
        shown.bare = binding.bare && (both_families || client.source != nullptr);
        return joined(line_of({{"kind", "binding"}, {"change", change}, {"from", text_or_null(from)}}),
                      met_binding_line(policy, service, shown, client));
}

std::string changed_settings_line(const std::string& service, const std::vector<std::string>& keys) {
        return line_of({{"kind", "settings"}, {"change", "changed"}, {"service", service}, {"settings", keys}});
}

std::string gone_socket_line(const std::string& service, const Registration& registration, bool live,
                             std::string_view why) {
        return joined(line_of({{"kind", "socket"}, {"change", "gone"}, {"why", why}}),
                      list_line(service, registration, live));
}

std::string lost_socket_line(const std::string& service, const Registration& registration, bool live,
                             std::string_view why) {
        const auto message = fmt::format("{} loses the {} socket {}: {}", service, to_string(registration.protocol),
                                         registration.bound.to_string(), why);
        return joined(gone_socket_line(service, registration, live, why),
                      diagnostic_line({.severity = Severity::kWarning, .message = message}));
}

std::string counters_line(const std::string& service, const SocketCount& sockets, const ServiceCounters& counters,
                          const BindingCount& bindings, std::optional<bool> announced, bool drained) {
        return line_of({
                {"service", service},
                {"sockets", sockets.live + sockets.held + sockets.draining},
                {"lookups", counters.lookups},
                {"assigned", counters.assigned},
                {"no_socket", counters.no_socket},
                {"errors",
                 {{"protocol", counters.error_protocol},
                  {"family", counters.error_family},
                  {"state", counters.error_state},
                  {"exists", counters.error_exists},
                  {"other", counters.error_other}}},
                {"live", sockets.live},
                {"held", sockets.held},
                {"draining", sockets.draining},
                {"bindings", bindings.all},
                {"reply_conflicts", counters.crossed},
                {"announced", announced ? Json(*announced) : Json(nullptr)},
                {"drained", drained},
                {"bindings_without_socket", bindings.without_socket},
        });
}

Rows diagnostic_rows(std::shared_ptr<const std::vector<Diagnostic>> diagnostics, std::string last) {
        return [all = std::move(diagnostics), next = std::size_t{0},
                last = std::move(last)]() mutable -> std::optional<std::string> {
                if (all == nullptr || next == all->size()) {
                        return last.empty() ? std::nullopt : std::optional(std::exchange(last, {}));
                }
                return diagnostic_line((*all)[next++]);
        };
}

std::string status_line(const BrokerStatus& status) {
        const auto& policy = status.policy;
        std::string refusals;
        for (std::size_t i = 0; i < status.refusals.size(); i++) {
                if (const auto count = status.refusals[i]; count > 0) {
                        refusals += fmt::format("{}\"{}\":{}", refusals.empty() ? "" : ",",
                                                to_string(static_cast<ResultCode>(i)), count);
                }
        }
        const auto last = fmt::format("{{\"refusals\":{{{}}}}}\n", refusals);
        return joined(
                line_of({
                        {"version", SOCKBROKER_VERSION},
                        {"state", policy.degraded.empty() ? "running" : "degraded"},
                        {"reason", text_or_null(policy.degraded)},
                        {"dispatches", status.dispatches},
                        {"since", status.since_usec},
                        {"degraded_since", policy.degraded.empty() ? Json(nullptr) : Json(policy.degraded_since_usec)},
                        {"policy",
                         {{"files", status.policy_files},
                          {"services", status.policy_services},
                          {"bindings", status.policy_bindings},
                          {"since", status.policy_since_usec},
                          {"digest", text_or_null(policy.digest)},
                          {"trial_until",
                           policy.trial_until_usec == 0 ? Json(nullptr) : Json(policy.trial_until_usec)}}},
                        {"refused_policy",
                         policy.refused_digest.empty()
                                 ? Json(nullptr)
                                 : Json({{"digest", policy.refused_digest}, {"since", policy.refused_since_usec}})},
                        {"sockets", {{"live", status.live}, {"draining", status.draining}, {"held", status.held}}},
                        {"capacity",
                         {{"bindings", status.capacity.bindings},
                          {"services", status.capacity.services},
                          {"sockets", status.capacity.sockets}}},
                        {"gone", status.gone},
                        {"refused", status.refused},
                        {"connections_refused", status.connections_refused},
                        {"journal_lost", status.journal_lost},
                        {"warnings", status.warnings},
                        {"routes",
                         {{"local", status.routes.local},
                          {"announced", status.routes.announced},
                          {"refused", status.routes.refused}}},
                        {"reloads", {{"ok", policy.reloads_taken}, {"refused", policy.reloads_refused}}},
                }),
                last);
}

}  // namespace sockbroker
