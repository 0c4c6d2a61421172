// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See metrics.h. A new metric gets a line in render_metrics() and one in sockbroker-exporter(8).
#include "broker/ctl/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <utility>

#include "broker/ctl/socket_queues.h"
#include "broker/ctl/stopped.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

constexpr std::array<const char*, 5> kCauses{"protocol", "family", "state", "exists", "other"};
constexpr std::array<const char*, 3> kStates{"live", "held", "draining"};

using Labels = std::vector<std::pair<std::string_view, std::string>>;

std::string escaped(std::string_view text) {
        std::string result;
        for (const char c : text) {
                if (c == '\\' || c == '"') {
                        result += '\\';
                        result += c;
                } else {
                        result += c == '\n' ? std::string("\\n") : std::string(1, c);
                }
        }
        return result;
}

// One family of samples after another, each with its head.
class Page {
public:
        explicit Page(MetricsFormat format) : format_(format) {}

        void begin(std::string_view name, std::string_view type, std::string_view help) {
                name_ = fmt::format("sockbroker_{}", name);
                const bool counter = type == "counter";
                sample_name_ = counter ? name_ + "_total" : name_;
                // OpenMetrics names the family, Prometheus what stands in the lines.
                const auto& head = format_ == MetricsFormat::kPrometheus ? sample_name_ : name_;
                text_ += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", head, help, type);
        }
        template <class Number>
        void add(const Labels& labels, Number value) {
                std::string inner;
                for (const auto& [name, text] : labels) {
                        inner += fmt::format("{}{}=\"{}\"", inner.empty() ? "" : ",", name, escaped(text));
                }
                text_ += fmt::format("{}{} {}\n", sample_name_, inner.empty() ? "" : "{" + inner + "}", value);
        }
        template <class Number>
        void single(std::string_view name, std::string_view type, std::string_view help, Number value) {
                begin(name, type, help);
                add({}, value);
        }
        [[nodiscard]] std::string finish() {
                if (format_ == MetricsFormat::kOpenMetrics) {
                        text_ += "# EOF\n";
                }
                return std::move(text_);
        }

private:
        MetricsFormat format_;
        std::string name_, sample_name_, text_;
};

const Json& at(const Json& object, const char* name) {
        static const Json kNothing;
        const auto found = object.find(name);
        return found == object.end() ? kNothing : *found;
}

double number(const Json& value) {
        return value.is_number() ? value.get<double>() : 0;
}

Labels of(const Json& service) {
        return {{"service", cell(service, "service")}};
}

void add_broker(Page& page, const Json& broker) {
        page.begin("info", "gauge", "The broker that answers, by its version.");
        page.add({{"version", cell(broker, "version")}}, 1);
        page.single("degraded", "gauge", "Whether nothing is dispatched or the policy in force is not the one on disk.",
                    cell(broker, "state") == "degraded" ? 1 : 0);
        page.single("dispatches", "gauge", "Whether lookups come to the dispatch program.",
                    at(broker, "dispatches") == Json(false) ? 0 : 1);
        page.single("start_timestamp_seconds", "gauge", "When the broker was started.",
                    number(at(broker, "since")) / 1e6);
        const Json& policy = at(broker, "policy");
        page.single("policy_timestamp_seconds", "gauge", "When the policy in force was taken.",
                    number(at(policy, "since")) / 1e6);
        page.begin("capacity", "gauge", "What the limits allow, and the kernel's maps have room for.");
        const Json& capacity = at(broker, "capacity");
        for (const char* resource : {"bindings", "services", "sockets"}) {
                page.add({{"resource", resource}}, number(at(capacity, resource)));
        }
        page.begin("capacity_used", "gauge", "How much of that is taken.");
        page.add({{"resource", "bindings"}}, number(at(policy, "bindings")));
        page.add({{"resource", "services"}}, number(at(policy, "services")));
        double sockets = 0;
        for (const char* state : kStates) {
                sockets += number(at(at(broker, "sockets"), state));
        }
        page.add({{"resource", "sockets"}}, sockets);
        page.begin("reloads", "counter", "Reloads of the policy since the broker was started.");
        for (const auto& [result, count] : at(broker, "reloads").items()) {
                page.add({{"result", result}}, number(count));
        }
        page.begin("refusals", "counter", "Requests that were refused since the broker was started.");
        for (const auto& [result, count] : at(broker, "refusals").items()) {
                page.add({{"result", result}}, number(count));
        }
        page.single("connections_refused", "counter", "Connections to the control socket that were refused, unread.",
                    number(at(broker, "connections_refused")));
        page.single("sockets_gone", "counter", "Sockets that were found closed, shut down or connected.",
                    number(at(broker, "gone")));
        page.single("journal_lost", "counter", "Journal entries that could not be written.",
                    number(at(broker, "journal_lost")));
}

void add_services(Page& page, const std::vector<Json>& services) {
        const auto counter = [&](std::string_view name, const char* field, std::string_view help) {
                page.begin(name, "counter", help);
                for (const Json& service : services) {
                        page.add(of(service), number(at(service, field)));
                }
        };
        counter("service_lookups", "lookups", "Packets that a binding of the service decided.");
        counter("service_assigned", "assigned", "Of these, the ones that a socket took.");
        counter("service_no_socket", "no_socket", "Of these, the ones that found no live socket.");
        page.begin("service_errors", "counter", "Of these, the ones whose socket the kernel refused to use.");
        for (const Json& service : services) {
                for (const char* cause : kCauses) {
                        page.add({{"service", cell(service, "service")}, {"cause", cause}},
                                 number(at(at(service, "errors"), cause)));
                }
        }
        counter("service_reply_conflicts", "reply_conflicts",
                "Packets by which a client of UdpReply=original asked another address before it had its answer.");
        page.begin("service_sockets", "gauge", "Registered sockets.");
        for (const Json& service : services) {
                for (const char* state : kStates) {
                        page.add({{"service", cell(service, "service")}, {"state", state}}, number(at(service, state)));
                }
        }
        // The pins do not know.
        const auto known = [](const Json& service) { return !at(service, "bindings").is_null(); };
        page.begin("service_bindings", "gauge", "Bindings of the service.");
        for (const Json& service : services) {
                if (known(service)) {
                        page.add(of(service), number(at(service, "bindings")));
                }
        }
        page.begin("service_bindings_without_socket", "gauge",
                   "Of these, the ones for whose protocol and family it has no live or held socket.");
        for (const Json& service : services) {
                if (known(service)) {
                        page.add(of(service), number(at(service, "bindings_without_socket")));
                }
        }
}

void add_routes(Page& page, const Json& broker, const std::vector<Json>& services) {
        const auto flag = [&](std::string_view name, std::string_view help, const char* field, bool all) {
                page.begin(name, "gauge", help);
                for (const Json& service : services) {
                        if (const Json& value = at(service, field); value.is_boolean() && (all || value.get<bool>())) {
                                page.add(of(service), value.get<bool>() ? 1 : 0);
                        }
                }
        };
        flag("service_announced", "Whether its prefixes stand in the table of Announce=, where policy asks for that.",
             "announced", true);
        flag("service_drained", "Services that sockbrokerctl drain has withdrawn.", "drained", false);
        if (!broker.is_null()) {
                page.begin("routes", "gauge", "Routes of the broker in the kernel, and prefixes that cannot have one.");
                for (const auto& [kind, number_of_them] : at(broker, "routes").items()) {
                        page.add({{"kind", kind}}, number(number_of_them));
                }
        }
}

// Of all sockets of a service that the kernel shows here.
struct QueueSum {
        double waiting = 0, limit = 0, bytes = 0;
        std::map<std::string, double> drops;  // by protocol
};

void add_queues(Page& page, const std::vector<Json>& sockets) {
        std::map<std::string, QueueSum> sums;
        for (const Json& socket : sockets) {
                if (at(socket, "queue").is_null()) {
                        continue;
                }
                QueueSum& sum = sums[cell(socket, "service")];
                const auto protocol = cell(socket, "protocol");
                (protocol == "tcp" ? sum.waiting : sum.bytes) += number(at(socket, "queue"));
                sum.limit += number(at(socket, "queue_limit"));
                sum.drops[protocol] += number(at(socket, "drops"));
        }
        const auto gauge = [&](std::string_view name, std::string_view help, double QueueSum::*field) {
                page.begin(name, "gauge", help);
                for (const auto& [service, sum] : sums) {
                        page.add({{"service", service}}, sum.*field);
                }
        };
        gauge("service_accept_queue", "Connections that wait to be accepted.", &QueueSum::waiting);
        gauge("service_accept_queue_limit", "How many may wait.", &QueueSum::limit);
        gauge("service_receive_queue_bytes", "Bytes that wait in UDP sockets.", &QueueSum::bytes);
        page.begin("service_socket_drops", "gauge",
                   "Connections and datagrams that the kernel dropped, of the sockets that are registered now.");
        for (const auto& [service, sum] : sums) {
                for (const auto& [protocol, drops] : sum.drops) {
                        page.add({{"service", service}, {"protocol", protocol}}, drops);
                }
        }
}

void add_bindings(Page& page, const std::vector<Json>& bindings) {
        // A line of the policy may be several: of both families, of many sources.
        std::map<std::pair<std::string, std::string>, std::pair<double, double>> sums;
        for (const Json& binding : bindings) {
                auto& [lookups, no_socket] = sums[{cell(binding, "service"),
                                                   fmt::format("{}:{}", cell(binding, "file"), cell(binding, "line"))}];
                lookups += number(at(binding, "lookups"));
                no_socket += number(at(binding, "no_socket"));
        }
        const auto counter = [&](std::string_view name, std::string_view help, bool lookups) {
                page.begin(name, "counter", help);
                for (const auto& [key, sum] : sums) {
                        page.add({{"service", key.first}, {"binding", key.second}}, lookups ? sum.first : sum.second);
                }
        };
        counter("binding_lookups", "Packets that the bindings of this line decided (Accounting=binding).", true);
        counter("binding_no_socket", "Of these, the ones that found no live socket.", false);
}

}  // namespace

std::string_view content_type(MetricsFormat format) {
        return format == MetricsFormat::kOpenMetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                                     : "text/plain; version=0.0.4; charset=utf-8";
}

std::string render_metrics(const Observations& seen, MetricsFormat format) {
        Page page(format);
        page.single("up", "gauge", "Whether the broker answers.", seen.broker.is_null() ? 0 : 1);
        if (!seen.broker.is_null()) {
                add_broker(page, seen.broker);
        }
        add_services(page, seen.services);
        add_routes(page, seen.broker, seen.services);
        add_queues(page, seen.sockets);
        add_bindings(page, seen.bindings);
        return page.finish();
}

Observed observe(const Options& options) {
        Observed result;
        Observations& seen = result.seen;
        const auto failed = [&](std::string why, bool nobody = false) {
                Stopped stopped = look_at_pins(options);
                result.why_not = stopped.dispatches ? fmt::format("{}; {}", why, describe(stopped)) : std::move(why);
                seen = {.broker = nullptr, .services = std::move(stopped.services), .sockets = {}, .bindings = {}};
                result.nobody = nobody;
                return std::move(result);
        };
        auto client = try_connect(options);
        if (!client) {
                return failed(client.error().errnum == ESHUTDOWN ? client.error().message : client.error().text(),
                              nobody_there(client.error()));
        }
        const auto collect = [&](std::string_view request, std::vector<Json>& rows) -> Result<void> {
                const auto answer = client->call(request, {}, [&](std::string_view line) {
                        if (auto row = parse_row(line)) {
                                rows.push_back(std::move(*row));
                        }
                });
                if (!answer) {
                        return std::unexpected(answer.error());
                }
                return answer->result == "ok" ? Result<void>()
                                              : fail(fmt::format("{}: {}", answer->result, answer->message));
        };
        for (const auto& [request, rows] : {std::pair{"VERB=status\n", &seen.services},
                                            {"VERB=list\n", &seen.sockets},
                                            {"VERB=counted\n", &seen.bindings}}) {
                if (const auto done = collect(request, *rows); !done) {
                        return failed(done.error().text());
                }
        }
        if (seen.services.empty()) {
                return failed("the broker's status is empty");
        }
        seen.broker = std::move(seen.services.front());
        seen.services.erase(seen.services.begin());
        SocketQueues queues;
        std::ranges::for_each(seen.sockets, [&](Json& socket) { queues.add_to(socket); });
        return result;
}

int show_metrics(const Options& options) {
        const auto observed = observe(options);
        if (!observed.why_not.empty()) {
                complain_as(observed.nobody ? std::string_view("unreachable") : kNoAnswer, 0, observed.why_not);
        }
        Output output(options);
        output.write(render_metrics(observed.seen, MetricsFormat::kOpenMetrics));
        return output.finish(observed.why_not.empty() ? kExitOk : observed.nobody ? kExitUnreachable : kExitFailed);
}

}  // namespace sockbroker::ctl
