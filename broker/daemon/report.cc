// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/report.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "broker/base/wall_clock.h"
#include "broker/daemon/rows.h"

namespace sockbroker {

namespace {

// Names of accounts that have no answer, for people.
std::string describe(const Names::Silent& silent) {
        if (silent.by_us) {
                return "the broker's process that looks up accounts (NSS) is gone, so what was known of them counts, "
                       "and those that are new admit nobody, until: systemctl restart sockbrokerd";
        }
        constexpr std::size_t kShown = 5;
        std::string names;
        for (std::size_t i = 0; i < std::min(silent.names.size(), kShown); i++) {
                names += fmt::format("{}{}={}", i == 0 ? "" : " ",
                                     silent.names[i].kind == AccountKind::kUser ? "User" : "Group",
                                     silent.names[i].name);
        }
        const std::time_t since = silent.since_usec / 1'000'000;
        std::tm utc{};
        gmtime_r(&since, &utc);
        std::array<char, 32> text{};
        (void)std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &utc);
        return fmt::format(
                "the host's directory (NSS) does not answer for {}{} since {}: what it said last counts, and "
                "nothing is taken away for it",
                names, silent.names.size() > kShown ? fmt::format(" and {} more", silent.names.size() - kShown) : "",
                text.data());
}

SocketCount count_sockets(const Registry& registry, const std::string& service) {
        SocketCount count;
        const auto registrations = registry.registrations(service);
        const Serving serving(registrations, registry.distribution(service));
        for (const auto& one : registrations) {
                (one.held() ? count.held : serving.is_live(one) ? count.live : count.draining)++;
        }
        return count;
}

// Held sockets count: clients are not refused.
BindingCount bindings_of(const Registry& registry, const Service& service) {
        const auto registrations = registry.registrations(service.name);
        BindingCount count;
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        const auto number = count_bindings(service, protocol, family);
                        const bool served = std::ranges::any_of(registrations, [&](const Registration& one) {
                                return one.serves_in(protocol, family);
                        });
                        count.all += number;
                        count.without_socket += served ? 0 : number;
                }
        }
        return count;
}

Refusal replaced_twice() {
        return {ResultCode::kBusy, "the policy was replaced twice while this was read, ask again", {}};
}

}  // namespace

Report::Report(const Dataplane& dataplane, const PolicyInForce& policy, const Reloads& reloads, Registry& registry,
               Departures& departures, const HeldSockets& held, const Routes& routes, const Names& names,
               const Refusals& refusals, const Audit& audit, Flows& flows, Attachment& attachment,
               const Capacity& allowed, std::uint64_t netns_cookie, std::string mistakes)
        : dataplane_(dataplane),
          policy_(policy),
          reloads_(reloads),
          registry_(registry),
          departures_(departures),
          held_(held),
          routes_(routes),
          names_(names),
          refusals_(refusals),
          audit_(audit),
          flows_(flows),
          attachment_(attachment),
          allowed_(allowed),
          netns_cookie_(netns_cookie),
          mistakes_(std::move(mistakes)),
          started_usec_(wall_usec()) {}

void Report::probe() {
        if (registry_.size() <= kAskAll) {
                departures_.gone(registry_.refresh_all());
        }
}

Answer Report::version() const {
        auto rows = rows_of_lines(fmt::format("{{\"version\":\"{}\",\"layout\":{},\"netns\":\"{:x}\"}}\n",
                                              SOCKBROKER_VERSION, Dataplane::layout_version(), netns_cookie_));
        return {.message = "sockbroker " SOCKBROKER_VERSION, .rows = std::move(rows)};
}

Answer Report::status() {
        attachment_.look();
        BrokerStatus status{
                .policy = reloads_.status(),
                .dispatches = !attachment_.is_lost(),
                .since_usec = started_usec_,
                .policy_files = policy_->files.size(),
                .policy_services = policy_->services.size(),
                .policy_bindings = count_bindings(*policy_),
                .policy_since_usec = policy_.since_usec(),
                .capacity = allowed_,
                .refused = refusals_.total(),
                .connections_refused = refusals_.connections(),
                .journal_lost = audit_.lost(),
                .refusals = refusals_.counts(),
                .routes = routes_.sum(),
        };
        attachment_.tell(status.policy);
        if (!mistakes_.empty()) {
                status.warnings.push_back(mistakes_);
        }
        if (const auto silent = names_.silent(); silent.by_us || !silent.names.empty()) {
                status.warnings.push_back(describe(silent));
        }
        std::ranges::move(held_.warnings(), std::back_inserter(status.warnings));
        std::ranges::move(routes_.warnings(), std::back_inserter(status.warnings));
        probe();
        status.gone = departures_.found_gone();
        for (const auto& service : registry_.services()) {
                const auto count = count_sockets(registry_, service);
                status.live += count.live;
                status.held += count.held;
                status.draining += count.draining;
        }
        Rows rows = [this, snapshot = policy_.snapshot(), next = std::size_t{0},
                     first = status_line(status)]() mutable -> std::expected<std::optional<std::string>, Refusal> {
                if (!first.empty()) {
                        return std::exchange(first, {});
                }
                const auto& policy = snapshot->policy;
                if (policy == nullptr) {
                        return std::unexpected(replaced_twice());
                }
                if (next == policy->services.size()) {
                        return std::nullopt;
                }
                const auto& service = policy->services[next++];
                const auto routes = routes_.of(service.name);
                return counters_line(service.name, count_sockets(registry_, service.name),
                                     registry_.counters(service.name), bindings_of(registry_, service),
                                     routes.announced, routes.drained);
        };
        return {.message = reloads_.status_text(), .rows = std::move(rows)};
}

Answer Report::list() {
        static constexpr std::size_t kLinesAtOnce = 64;
        probe();
        return {.rows = [this, services = registry_.services(), next = std::size_t{0},
                         cursor = Cursor{}]() mutable -> std::optional<std::string> {
                while (next < services.size()) {
                        const auto& service = services[next];
                        const auto registrations = registry_.registrations(service);
                        const auto distribution = registry_.distribution(service);
                        const Serving serving(registrations, distribution);
                        std::string lines;
                        const auto rest = behind(cursor, registrations);
                        for (const auto& one : rest.first(std::min(rest.size(), kLinesAtOnce))) {
                                lines += list_line(service, one, serving.is_live(one),
                                                   flows_.of(one, distribution, steady_usec()));
                                cursor = {one.since_usec, one.held()};
                        }
                        if (!lines.empty()) {
                                return lines;
                        }
                        next++;
                        cursor = {};
                }
                return std::nullopt;
        }};
}

Answer Report::bindings(bool counted_only) const {
        return {.rows = [this, counted_only, snapshot = policy_.snapshot(), service = std::size_t{0},
                         binding = std::size_t{0},
                         match = std::size_t{0}]() mutable -> std::expected<std::optional<std::string>, Refusal> {
                const auto& policy = snapshot->policy;
                if (policy == nullptr) {
                        return std::unexpected(replaced_twice());
                }
                while (service < policy->services.size()) {
                        const auto& one = policy->services[service];
                        if (binding == one.bindings.size() ||
                            (counted_only && one.accounting != Accounting::kBinding)) {
                                service++;
                                binding = match = 0;
                                continue;
                        }
                        const auto& shown = one.bindings[binding];
                        const auto family = shown.prefix.address.family;
                        // Ports alone stand twice, once for each family, but mean the same in both, unless clients are
                        // told apart.
                        const bool repeated = shown.bare && family == Family::kIpv6 && any_source(one);
                        if (repeated || match == count_client_filters(one, family)) {
                                binding++;
                                match = 0;
                                continue;
                        }
                        const auto meant = client_filter_at(one, family, match++);
                        std::optional<BindingCounters> counters;
                        if (one.accounting == Accounting::kBinding) {
                                counters = registry_.counters(one, shown, meant);
                                if (shown.bare && any_source(one)) {  // this line is of both families
                                        Binding other = shown;
                                        other.prefix.address.family = Family::kIpv6;
                                        const auto more = registry_.counters(one, other, meant);
                                        counters->lookups += more.lookups;
                                        counters->no_socket += more.no_socket;
                                }
                        }
                        return binding_line(*policy, one, shown, meant, counters);
                }
                return std::nullopt;
        }};
}

}  // namespace sockbroker
