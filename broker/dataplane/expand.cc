// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/expand.h"

#include <algorithm>
#include <limits>

namespace sockbroker {

namespace {

__extension__ using Number = unsigned __int128;

constexpr double kImpossible = std::numeric_limits<double>::infinity();

Number number_of(const NumberedPrefix& prefix) {
        return Number{prefix.high} << 64 | prefix.low;
}

// A prefix of length 0 stays what it is: its continuations are too many for any room.
double entries(unsigned length, unsigned standing, double count) {
        if (length == standing) {
                return count;
        }
        return length == 0 || standing - length > 24 ? kImpossible : count * (1U << (standing - length));
}

}  // namespace

StandingLengths choose_lengths(const LengthCounts& counts, std::size_t max_entries) {
        std::vector<unsigned> used;
        for (unsigned length = 0; length < SB_MAX_LENGTHS; length++) {
                if (counts[length] != 0) {
                        used.push_back(length);
                }
        }
        StandingLengths result{};
        for (const unsigned length : used) {
                result[length] = static_cast<std::uint8_t>(length);
        }
        const std::size_t n = used.size();
        if (n <= kProbedLengths) {
                return result;
        }
        // cost[k][i]: entries of the i shortest lengths with k regions, the last of which is the i-th length's.
        std::vector<std::vector<double>> cost(n + 1, std::vector<double>(n + 1, kImpossible));
        std::vector<std::vector<std::size_t>> from(n + 1, std::vector<std::size_t>(n + 1));
        cost[0][0] = 0;
        for (std::size_t k = 1; k < n; k++) {
                for (std::size_t i = k; i <= n; i++) {
                        double here = 0;
                        for (std::size_t j = i; j-- > 0 && here < kImpossible;) {
                                here += entries(used[j], used[i - 1], counts[used[j]]);
                                if (cost[k - 1][j] + here < cost[k][i]) {
                                        cost[k][i] = cost[k - 1][j] + here;
                                        from[k][i] = j;
                                }
                        }
                }
                if (k >= kProbedLengths && cost[k][n] <= static_cast<double>(max_entries)) {
                        for (std::size_t i = n, left = k; left > 0; i = from[left--][i]) {
                                for (std::size_t j = from[left][i]; j < i; j++) {
                                        result[used[j]] = static_cast<std::uint8_t>(used[i - 1]);
                                }
                        }
                        break;
                }
        }
        return result;
}

void expand_prefixes(std::span<const NumberedPrefix> prefixes, unsigned length,
                     const std::function<void(std::size_t, std::uint64_t, std::uint64_t)>& stand) {
        struct Open {
                std::size_t index;
                Number cursor;  // what is before it has been called for
                Number last;    // the last address of the prefix
        };
        const Number step = length == 0 ? Number{0} : Number{1} << (128 - length);
        const auto call_up_to = [&](Open& open, Number end) {  // end: the first address that is not meant
                for (; open.cursor != end; open.cursor += step) {
                        stand(open.index, static_cast<std::uint64_t>(open.cursor >> 64),
                              static_cast<std::uint64_t>(open.cursor));
                }
        };
        std::vector<Open> open;
        const auto close = [&] {
                const Open done = open.back();
                if (length == 0) {
                        stand(done.index, 0, 0);
                } else {
                        call_up_to(open.back(), done.last + 1);
                }
                open.pop_back();
                if (!open.empty()) {
                        open.back().cursor = done.last + 1;
                }
        };
        for (std::size_t i = 0; i < prefixes.size(); i++) {
                const Number first = number_of(prefixes[i]);
                while (!open.empty() && first > open.back().last) {
                        close();
                }
                if (!open.empty()) {
                        call_up_to(open.back(), first);
                }
                const unsigned bits = prefixes[i].length;
                open.push_back({i, first, bits == 128 ? first : first | ~Number{0} >> bits});
        }
        while (!open.empty()) {
                close();
        }
}

}  // namespace sockbroker
