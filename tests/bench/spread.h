// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What stands for many measured values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace sockbroker::bench {

// Mean without the slowest twentieth, which interrupts made.
inline double trimmed_mean(std::vector<unsigned>& values) {
        std::sort(values.begin(), values.end());
        const std::size_t kept = std::max<std::size_t>(1, values.size() * 19 / 20);
        double sum = 0;
        for (std::size_t i = 0; i < kept; i++) {
                sum += values[i];
        }
        return sum / static_cast<double>(kept);
}

struct Spread {
        double low, median, high;  // quartiles
};

inline Spread spread(std::vector<double> values) {
        std::sort(values.begin(), values.end());
        const auto at = [&](double part) { return values[static_cast<std::size_t>(part * (values.size() - 1) + 0.5)]; };
        return {at(0.25), at(0.5), at(0.75)};
}

}  // namespace sockbroker::bench
