// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/parse.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include "broker/base/huge_pages.h"
#include "broker/base/nearest.h"
#include "broker/base/time_span.h"
#include "broker/policy/checks.h"
#include "broker/policy/conflicts.h"
#include "broker/policy/findings.h"
#include "broker/policy/ini.h"
#include "broker/policy/route_checks.h"
#include "broker/policy/values.h"
#include "broker/protocol/service_name.h"

namespace sockbroker {

namespace {

constexpr std::uint32_t kMaxSocketsOfService = 1U << 20;
constexpr std::int64_t kMaxHoldSec = 86'400'000'000;  // microseconds; clients wait all the while
// Not constexpr: clang takes no std::string of libstdc++ 12 in a constant expression.
const std::uint32_t kDefaultMaxSockets = Service{}.max_sockets;
constexpr std::string_view kSection = "Service ";
constexpr std::array<std::string_view, 17> kServiceKeys = {
        "Unit",       "User",       "Group",      "ListenStream", "ListenDatagram", "Source",
        "Interface",  "WhenAbsent", "Accounting", "Handover",     "ReusePort",      "HoldSec",
        "MaxSockets", "UdpReply",   "UdpFlows",   "LocalRoutes",  "Announce"};

// "[service web]" is near "[Service web]", "[Servic]" near "[Service NAME]"; empty: it is not.
std::string meant_section(std::string_view name) {
        constexpr std::array<std::string_view, 1> kWord = {"Service"};
        const auto word = name.substr(0, name.find_first_of(" \t"));
        if (!nearest(word, kWord)) {
                return {};
        }
        const auto rest = name.find_first_not_of(" \t", word.size());
        const auto service = rest == std::string_view::npos ? std::string_view() : name.substr(rest);
        return fmt::format("Service {}", valid_service_name(service) ? service : "NAME");
}

// Gathers all files into one Policy. What is wrong is noted and passed over, so that every error is found.
class PolicyCollector : public IniSink {
public:
        PolicyCollector(Policy& policy, std::size_t max_bindings) : policy_(policy), max_bindings_(max_bindings) {}

        void begin_file(const PolicyFile& file) {
                file_ = static_cast<std::uint32_t>(policy_.files.size());
                policy_.files.push_back(file.path);
                inside_ = false;
                service_ = nullptr;
        }

        void section(unsigned line, std::string_view name, std::size_t lines) override {
                inside_ = true;
                service_ = &discarded_;
                if (name.empty()) {
                        return;  // the error is known
                }
                if (name == "Broker") {
                        return error(line,
                                     "[Broker] is a section of sockbrokerd.conf, here only [Service NAME] is taken");
                }
                if (!name.starts_with(kSection)) {
                        const auto meant = meant_section(name);
                        return error(line,
                                     meant.empty()
                                             ? fmt::format("unknown section [{}], only [Service NAME] is taken", name)
                                             : fmt::format("unknown section [{}], did you mean [{}]?", name, meant));
                }
                const auto service = name.substr(kSection.size());
                if (!valid_service_name(service)) {
                        return error(line, fmt::format("service name \"{}\" is not 1 to {} of A-Z a-z 0-9 . _ -",
                                                       service, kMaxServiceName));
                }
                const auto [found, fresh] = index_.try_emplace(std::string(service), policy_.services.size());
                if (fresh) {
                        policy_.services.push_back({.name = found->first, .where = {file_, line}});
                }
                service_ = &policy_.services[found->second];
                make_room(service_->bindings, std::min(lines, max_bindings_));
        }

        void entry(unsigned line, std::string_view key, std::string_view value) override {
                if (!inside_) {
                        return error(line,
                                     fmt::format("{}= stands before any section, [Service NAME] comes first", key));
                }
                if (const auto result = take(key, value, {file_, line}); !result) {
                        error(line, result.error().message);
                }
        }

        void error(unsigned line, std::string message) override { findings_.error({file_, line}, std::move(message)); }

        Findings findings_;

private:
        // For so many more at once: to grow a vector of a million step by step costs as much as to read them.
        static void make_room(std::vector<Binding>& bindings, std::size_t more) {
                if (const auto needed = bindings.size() + more; needed > bindings.capacity()) {
                        bindings.reserve(std::max(needed, 2 * bindings.capacity()));
                        prefer_huge_pages(bindings.data(), bindings.capacity() * sizeof(Binding));
                }
        }

        Result<void> take(std::string_view key, std::string_view value, Where where) {
                if (key == "ListenStream") {
                        return listen(Protocol::kTcp, key, value, where);
                }
                if (key == "ListenDatagram") {
                        return listen(Protocol::kUdp, key, value, where);
                }
                if (key == "Unit") {
                        service_->last.units = where;
                        return matchers(service_->units, key, value, where, check_unit_pattern);
                }
                if (key == "User") {
                        return matchers(service_->users, key, value, where,
                                        [](std::string_view word) { return check_account("user", word); });
                }
                if (key == "Group") {
                        return matchers(service_->groups, key, value, where,
                                        [](std::string_view word) { return check_account("group", word); });
                }
                if (key == "Source") {
                        return sources(key, value, where);
                }
                if (key == "Interface") {
                        return matchers(service_->interfaces, key, value, where, check_interface);
                }
                if (key == "WhenAbsent") {
                        return choose(service_->when_absent, key, value,
                                      std::array{WhenAbsent::kRefuse, WhenAbsent::kPass, WhenAbsent::kNext});
                }
                if (key == "Accounting") {
                        return choose(service_->accounting, key, value,
                                      std::array{Accounting::kService, Accounting::kBinding});
                }
                if (key == "Handover") {
                        service_->last.handover = where;
                        return choose(service_->handover, key, value,
                                      std::array{Handover::kReplace, Handover::kShare, Handover::kRefuse});
                }
                if (key == "ReusePort") {
                        service_->last.reuse_port = where;
                        return boolean(service_->reuse_port, key, value);
                }
                if (key == "UdpReply") {
                        service_->last.udp_reply = where;
                        return choose(service_->udp_reply, key, value, std::array{UdpReply::kNo, UdpReply::kOriginal});
                }
                if (key == "UdpFlows") {
                        service_->last.udp_flows = where;
                        return udp_flows(value);
                }
                if (key == "LocalRoutes") {
                        return boolean(service_->local_routes, key, value);
                }
                if (key == "Announce") {
                        return choose(service_->announce, key, value,
                                      std::array{Announce::kNo, Announce::kAny, Announce::kAll});
                }
                if (key == "HoldSec") {
                        return hold(value);
                }
                if (key == "MaxSockets") {
                        service_->last.max_sockets = where;
                        return max_sockets(value);
                }
                return fail(unknown_key(key, kServiceKeys));
        }

        Result<void> listen(Protocol protocol, std::string_view key, std::string_view value, Where where) {
                auto& bindings = service_->bindings;
                if (value.empty()) {
                        std::erase_if(bindings, [&](const Binding& old) { return old.protocol == protocol; });
                        return {};
                }
                const auto parsed = parse_listen(value);
                if (!parsed) {
                        return fail(fmt::format("{}=: {}", key, parsed.error().message));
                }
                if (const auto& prefix = parsed->prefix) {
                        bindings.push_back({*prefix, parsed->ports, protocol, false, where});
                        return {};
                }
                for (const auto family : {Family::kIpv4, Family::kIpv6}) {
                        bindings.push_back({Prefix{Address{family, {}}, 0}, parsed->ports, protocol, true, where});
                }
                return {};
        }

        Result<void> sources(std::string_view key, std::string_view value, Where where) {
                if (value.empty()) {
                        service_->sources = {};
                        return {};
                }
                std::string wrong;
                for (const auto word : split_words(value)) {
                        if (const auto prefix = parse_source(word)) {
                                const auto family = static_cast<std::size_t>(prefix->address.family);
                                service_->sources[family].push_back({*prefix, where});
                        } else {
                                wrong += (wrong.empty() ? "" : "; ") + prefix.error().message;
                        }
                }
                if (!wrong.empty()) {
                        return fail(fmt::format("{}=: {}", key, wrong));
                }
                return {};
        }

        template <class Check>
        static Result<void> matchers(std::vector<Matcher>& list, std::string_view key, std::string_view value,
                                     Where where, Check check) {
                if (value.empty()) {
                        list.clear();
                        return {};
                }
                std::string wrong;
                for (const auto word : split_words(value)) {
                        if (const auto good = check(word); !good) {
                                wrong += (wrong.empty() ? "" : "; ") + good.error().message;
                        }
                        list.push_back({std::string(word), where});
                }
                if (!wrong.empty()) {
                        return fail(fmt::format("{}=: {}", key, wrong));
                }
                return {};
        }

        template <class Choice, std::size_t kCount>
        static Result<void> choose(Choice& target, std::string_view key, std::string_view value,
                                   const std::array<Choice, kCount>& known) {
                if (value.empty()) {
                        target = *known.begin();  // the default
                        return {};
                }
                const auto found = std::find_if(known.begin(), known.end(),
                                                [&](Choice choice) { return to_string(choice) == value; });
                if (found == known.end()) {
                        std::string words(to_string(known[0]));
                        for (std::size_t i = 1; i < kCount; i++) {
                                words += (i + 1 < kCount ? ", " : " and ") + std::string(to_string(known[i]));
                        }
                        return fail(fmt::format("{}=: unknown value \"{}\", this version takes {}", key, value, words));
                }
                target = *found;
                return {};
        }

        static Result<void> boolean(bool& target, std::string_view key, std::string_view value) {
                const auto said = parse_boolean(value.empty() ? "no" : value);
                if (!said) {
                        return fail(fmt::format("{}=: \"{}\" is neither yes nor no", key, value));
                }
                target = *said;
                return {};
        }

        Result<void> udp_flows(std::string_view value) {
                if (!value.empty() && value != to_string(UdpFlows::kNo) && value != to_string(UdpFlows::kStay)) {
                        return fail(fmt::format("UdpFlows=: \"{}\" is neither stay nor no", value));
                }
                service_->udp_flows = value == to_string(UdpFlows::kStay) ? UdpFlows::kStay : UdpFlows::kNo;
                return {};
        }

        Result<void> hold(std::string_view value) {
                const auto span = parse_time_span(value.empty() ? "0" : value);
                if (!span || span->count() > kMaxHoldSec) {
                        return fail(fmt::format(
                                "HoldSec=: \"{}\" is not a time span of one day at most, such as 30 or \"1min 30s\"",
                                value));
                }
                service_->hold_usec = span->count();
                return {};
        }

        Result<void> max_sockets(std::string_view value) {
                if (value.empty()) {
                        service_->max_sockets = kDefaultMaxSockets;
                        return {};
                }
                const auto number = parse_number(value, kMaxSocketsOfService);
                if (!number || *number == 0) {
                        return fail(fmt::format("MaxSockets=: \"{}\" is not a number from 1 to {}", value,
                                                kMaxSocketsOfService));
                }
                service_->max_sockets = static_cast<std::uint32_t>(*number);
                return {};
        }

        Policy& policy_;
        const std::size_t max_bindings_;
        std::unordered_map<std::string, std::size_t> index_;
        std::uint32_t file_ = 0;
        bool inside_ = false;         // a section has begun in this file
        Service* service_ = nullptr;  // valid until the next section
        Service discarded_;           // takes what stands in a section that is an error
};

}  // namespace

ParsedPolicy parse_policy(const std::vector<PolicyFile>& files, const PolicyLimits& limits,
                          const std::optional<PolicyLimits>& configured) {
        Policy policy;
        PolicyCollector collector(policy, limits.max_bindings);
        for (const auto& file : files) {
                collector.begin_file(file);
                read_ini(file.text, collector);
        }
        for (auto& service : policy.services) {
                if (auto& bindings = service.bindings; bindings.capacity() - bindings.size() > bindings.size() / 8) {
                        bindings.shrink_to_fit();
                }
                for (const auto& binding : service.bindings) {
                        const auto family = binding.prefix.address.family;
                        const auto p = static_cast<std::size_t>(binding.protocol);
                        const auto f = static_cast<std::size_t>(family);
                        service.lines[p][f]++;
                        service.used[p][f] = service.used[p][f] || has_clients(service, family);
                }
        }
        std::sort(policy.services.begin(), policy.services.end(),
                  [](const Service& a, const Service& b) { return a.name < b.name; });

        auto& findings = collector.findings_;
        drop_repeated_matches(policy, findings);
        check_udp_replies(policy, findings);
        if (findings.errors() == 0) {  // else what a service lacks may be what could not be read
                check_services(policy, findings);
                check_routes(policy, findings);
        }
        // What is multiplied beyond the limit is not looked at one by one: that would take what the limit is to save.
        if (check_limits(policy, limits, configured.value_or(limits), findings)) {
                find_conflicts(policy, findings);
        }

        ParsedPolicy parsed;
        parsed.errors = findings.errors();
        parsed.diagnostics = findings.take(policy.files);
        if (parsed.errors == 0) {
                parsed.policy = std::move(policy);
        }
        return parsed;
}

}  // namespace sockbroker
