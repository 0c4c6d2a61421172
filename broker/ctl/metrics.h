// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the broker answers, as metrics: OpenMetrics 1.0, or the text format of Prometheus. Labels hold names of
// services, causes and places in policy files, never addresses, clients or pids.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker/ctl/ask.h"
#include "broker/ctl/options.h"
#include "broker/ctl/render.h"

namespace sockbroker::ctl {

enum class MetricsFormat : std::uint8_t { kOpenMetrics, kPrometheus };
[[nodiscard]] std::string_view content_type(MetricsFormat format);

// Rows of the broker.
struct Observations {
        Json broker;                 // of status; null: no broker answers
        std::vector<Json> services;  // of status
        std::vector<Json> sockets;   // of list, with their queues
        std::vector<Json> bindings;  // that are counted one by one
};

// Never starts a broker. Where none answers: what the pins say, and why.
struct Observed {
        Observations seen;
        std::string why_not;  // empty: the broker has answered
        bool nobody = false;  // there is no broker, rather than one that hangs or refuses
};
[[nodiscard]] Observed observe(const Options& options);

// Pure.
[[nodiscard]] std::string render_metrics(const Observations& seen, MetricsFormat format);

}  // namespace sockbroker::ctl
