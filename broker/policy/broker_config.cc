// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbrokerd.conf: the first one found in the folders, then the drop-ins of sockbrokerd.conf.d, by file name, which
// win. A key with an error keeps its default, the others count: limits that fall back together would refuse a policy
// over a typo elsewhere.
#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "broker/base/time_span.h"
#include "broker/policy/ini.h"
#include "broker/policy/read_files.h"
#include "broker/policy/values.h"

namespace sockbroker {

namespace {

struct Limit {
        std::string_view key;
        std::uint32_t BrokerConfig::*direct;
        std::uint32_t PolicyLimits::*of_policy;
        std::uint32_t most;
        std::uint32_t least = 1;
};

constexpr std::array kLimits{
        Limit{"MaxBindings", nullptr, &PolicyLimits::max_bindings, 1U << 24},
        Limit{"MaxServices", nullptr, &PolicyLimits::max_services, 1U << 16},
        Limit{"MaxAccountedBindings", nullptr, &PolicyLimits::max_accounted, 1U << 16},
        Limit{"MaxSockets", &BrokerConfig::max_sockets, nullptr, 1U << 20},
        Limit{"RateLimitBurst", &BrokerConfig::rate_burst, nullptr, 1U << 30, 0},
        Limit{"NotifyRateLimitBurst", &BrokerConfig::notify_burst, nullptr, 1U << 30, 0},
};
constexpr std::string_view kInterval = "RateLimitIntervalSec";

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

        void section(unsigned line, std::string_view name) override {
                place_ = name == "Broker" ? Place::kBroker : Place::kElsewhere;
                if (place_ == Place::kElsewhere && !name.empty()) {
                        error(line, fmt::format("unknown section [{}], sockbrokerd.conf takes only [Broker]{}", name,
                                                name.starts_with("Service") ? ", policies are in conf.d" : ""));
                }
        }

        void entry(unsigned line, std::string_view key, std::string_view value) override {
                if (place_ == Place::kBeforeAny) {
                        return error(line, fmt::format("{}= stands before any section, [Broker] comes first", key));
                }
                if (key == kInterval) {
                        return interval(line, value);
                }
                const auto limit = std::find_if(kLimits.begin(), kLimits.end(),
                                                [&](const Limit& known) { return known.key == key; });
                if (limit == kLimits.end()) {
                        return error(line, fmt::format("unknown key {}=, this version takes MaxBindings= MaxServices= "
                                                       "MaxSockets= MaxAccountedBindings= RateLimitBurst= "
                                                       "NotifyRateLimitBurst= RateLimitIntervalSec=",
                                                       key));
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
        void interval(unsigned line, std::string_view value) {
                const Result<std::chrono::microseconds> usual(BrokerConfig{}.rate_interval_usec);
                const auto span = value.empty() ? usual : parse_time_span(value);
                if (!span || *span > std::chrono::hours(24)) {
                        return error(line, fmt::format("{}=: \"{}\" is not a time span of one day at most", kInterval,
                                                       value));
                }
                if (place_ == Place::kBroker) {
                        parsed_.config.rate_interval_usec = span->count();
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
                if (!text && text.error().errnum == ENOENT && link_to_nowhere(path).empty()) {
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
