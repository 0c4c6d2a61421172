// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbrokerd.conf: the first one found in the directories, then the drop-ins of sockbrokerd.conf.d, by file name,
// which win. A key with an error keeps its default, the others count: limits that fall back together would refuse a
// policy over a typo elsewhere.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "broker/base/time_span.h"
#include "broker/policy/ini.h"
#include "broker/policy/read_files.h"
#include "broker/policy/values.h"

namespace sockbroker {

namespace {

constexpr std::array<std::string_view, 11> kBrokerKeys = {
        "MaxBindings",    "MaxServices",          "MaxSockets",           "MaxAccountedBindings",
        "RateLimitBurst", "NotifyRateLimitBurst", "RateLimitIntervalSec", "RouteProtocol",
        "AnnounceTable",  "AnnounceUpSec",        "AnnounceDownSec"};

struct Limit {
        std::string_view key;
        std::uint32_t BrokerConfig::*direct;
        std::uint32_t PolicyLimits::*of_policy;
        std::uint32_t most;
        std::uint32_t least = 1;
};

constexpr std::array kLimits{
        Limit{"MaxBindings", nullptr, &PolicyLimits::max_bindings, PolicyLimits::kMostBindings},
        Limit{"MaxServices", nullptr, &PolicyLimits::max_services, 1U << 16},
        Limit{"MaxAccountedBindings", nullptr, &PolicyLimits::max_accounted, 1U << 16},
        Limit{"MaxSockets", &BrokerConfig::max_sockets, nullptr, 1U << 20},
        Limit{"RateLimitBurst", &BrokerConfig::rate_burst, nullptr, 1U << 30, 0},
        Limit{"NotifyRateLimitBurst", &BrokerConfig::notify_burst, nullptr, 1U << 30, 0},
};

struct Span {
        std::string_view key;
        std::int64_t& (*of)(BrokerConfig&);
};
constexpr std::array kSpans{
        Span{"RateLimitIntervalSec", [](BrokerConfig& c) -> std::int64_t& { return c.rate_interval_usec; }},
        Span{"AnnounceUpSec", [](BrokerConfig& c) -> std::int64_t& { return c.routes.up_usec; }},
        Span{"AnnounceDownSec", [](BrokerConfig& c) -> std::int64_t& { return c.routes.down_usec; }},
};

// Numbers that others know their routes by (/etc/iproute2/rt_protos): theirs would be taken for the broker's, and
// removed.
constexpr std::array kTakenProtocols{8U,  9U,  10U, 11U, 12U,  13U,  14U,  15U,  16U,
                                     17U, 18U, 42U, 99U, 186U, 187U, 188U, 189U, 192U};
constexpr std::uint32_t kFirstProtocol = 5;  // below are those of the kernel and of an administrator by hand
constexpr std::uint32_t kLastProtocol = 255;
constexpr std::uint32_t kDefaultTable = 253;  // RT_TABLE_DEFAULT, then main and local: every machine has rules for them
constexpr std::uint32_t kLocalTable = 255;

std::uint32_t& field(BrokerConfig& config, const Limit& limit) {
        return limit.direct != nullptr ? config.*limit.direct : config.limits.*limit.of_policy;
}

class ConfigCollector : public IniSink {
public:
        explicit ConfigCollector(ParsedBrokerConfig& parsed) : parsed_(parsed) {}

        void begin_file(const std::string& path) {
                path_ = path;
                place_ = Place::kBeforeAny;
        }

        void section(unsigned line, std::string_view name, std::size_t /*lines*/) override {
                place_ = name == "Broker" ? Place::kBroker : Place::kElsewhere;
                if (place_ == Place::kElsewhere && !name.empty()) {
                        error(line, fmt::format("unknown section [{}], sockbrokerd.conf takes only [Broker]{}", name,
                                                name.starts_with("Service") ? ", policies are in conf.d" : ""));
                }
        }

        [[nodiscard]] std::string_view section_form() const override { return "[Broker]"; }

        void entry(unsigned line, std::string_view key, std::string_view value) override {
                if (place_ == Place::kBeforeAny) {
                        return error(line, fmt::format("{}= stands before any section, [Broker] comes first", key));
                }
                if (const auto span = std::ranges::find(kSpans, key, &Span::key); span != kSpans.end()) {
                        return take_span(line, *span, value);
                }
                if (key == "RouteProtocol") {
                        return protocol(line, value);
                }
                if (key == "AnnounceTable") {
                        return table(line, value);
                }
                const auto limit = std::find_if(kLimits.begin(), kLimits.end(),
                                                [&](const Limit& known) { return known.key == key; });
                if (limit == kLimits.end()) {
                        return error(line, unknown_key(key, kBrokerKeys));
                }
                BrokerConfig scratch;
                auto& target = field(place_ == Place::kBroker ? parsed_.config : scratch, *limit);
                if (value.empty()) {
                        BrokerConfig defaults;
                        target = field(defaults, *limit);
                        return;
                }
                const auto number = parse_number(value, limit->most);
                if (!number || *number < limit->least) {
                        return error(line, fmt::format("{}=: \"{}\" is not a number from {} to {}", key, value,
                                                       limit->least, limit->most));
                }
                target = static_cast<std::uint32_t>(*number);
        }

        void error(unsigned line, std::string message) override {
                parsed_.diagnostics.push_back({path_, line, Severity::kError, std::move(message)});
        }

private:
        void take_span(unsigned line, const Span& known, std::string_view value) {
                BrokerConfig defaults;
                const Result<std::chrono::microseconds> usual(known.of(defaults));
                const auto span = value.empty() ? usual : parse_time_span(value);
                if (!span || *span > std::chrono::hours(24)) {
                        return error(line, fmt::format("{}=: \"{}\" is not a time span of one day at most", known.key,
                                                       value));
                }
                if (place_ == Place::kBroker) {
                        known.of(parsed_.config) = span->count();
                }
        }

        void protocol(unsigned line, std::string_view value) {
                const auto number = value.empty() ? RouteConfig{}.protocol : parse_number(value, kLastProtocol);
                if (!number || *number < kFirstProtocol ||
                    std::ranges::find(kTakenProtocols, *number) != kTakenProtocols.end()) {
                        return error(line, fmt::format("RouteProtocol=: \"{}\" is not a number from {} to {} that no "
                                                       "routing daemon has (rt_protos of iproute2)",
                                                       value, kFirstProtocol, kLastProtocol));
                }
                if (place_ == Place::kBroker) {
                        parsed_.config.routes.protocol = static_cast<std::uint32_t>(*number);
                }
        }

        void table(unsigned line, std::string_view value) {
                const auto number = value.empty() ? RouteConfig{}.announce_table : parse_number(value, UINT32_MAX);
                if (!number || *number == 0 || (*number >= kDefaultTable && *number <= kLocalTable)) {
                        return error(line, fmt::format("AnnounceTable=: \"{}\" is not a number from 1 to {} other than "
                                                       "{} to {}, which are the tables default, main and local",
                                                       value, UINT32_MAX, kDefaultTable, kLocalTable));
                }
                if (place_ == Place::kBroker) {
                        parsed_.config.routes.announce_table = static_cast<std::uint32_t>(*number);
                }
        }

        enum class Place { kBeforeAny, kBroker, kElsewhere };

        ParsedBrokerConfig& parsed_;
        std::string path_;
        Place place_ = Place::kBeforeAny;
};

}  // namespace

ParsedBrokerConfig load_broker_config(const std::vector<std::string>& config_dirs) {
        ParsedBrokerConfig parsed;
        ConfigCollector collector(parsed);
        for (const auto& dir : config_dirs) {
                const auto path = dir + "/sockbrokerd.conf";
                const auto text = read_whole_file(path);
                if (!text && text.error().errnum == ENOENT) {
                        continue;
                }
                collector.begin_file(path);
                if (text) {
                        read_ini(*text, collector);
                } else {
                        collector.error(0, text.error().text());
                }
                break;
        }
        const auto found = read_drop_ins(config_dirs, "sockbrokerd.conf.d");
        parsed.diagnostics.insert(parsed.diagnostics.end(), found.diagnostics.begin(), found.diagnostics.end());
        for (const auto& file : found.files) {
                collector.begin_file(file.path);
                read_ini(file.text, collector);
        }
        return parsed;
}

}  // namespace sockbroker
