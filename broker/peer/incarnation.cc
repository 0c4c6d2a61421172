// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/peer/incarnation.h"

#include <time.h>
#include <unistd.h>

#include "broker/base/net.h"
#include "broker/peer/proc.h"

namespace sockbroker {

namespace {

constexpr std::int64_t kUsecPerSec = 1'000'000;

std::int64_t now_usec(clockid_t clock) {
        timespec now{};
        clock_gettime(clock, &now);
        return now.tv_sec * kUsecPerSec + now.tv_nsec / 1000;
}

}  // namespace

std::optional<Incarnation> read_incarnation(int process) {
        const auto stat = read_small(process, "stat");
        const auto status = read_small(process, "status");
        if (!stat || !status) {
                return std::nullopt;
        }
        // proc(5): the name stands in parentheses and may hold anything; starttime is field 22, the state field 3.
        const auto name_end = stat->rfind(')');
        const auto uids = status->find("\nUid:");
        if (name_end == std::string::npos || uids == std::string::npos) {
                return std::nullopt;
        }
        const auto start = parse_number(word(std::string_view(*stat).substr(name_end + 1), 22 - 3), UINT64_MAX);
        const auto uid = parse_number(word(std::string_view(*status).substr(uids + 5), 0), UINT32_MAX);
        if (!start || !uid) {
                return std::nullopt;
        }
        return Incarnation{*start, static_cast<uid_t>(*uid)};
}

std::int64_t start_usec(const Incarnation& process) {
        const std::int64_t ticks_per_sec = sysconf(_SC_CLK_TCK);
        const auto ticks = static_cast<std::int64_t>(process.start_ticks);
        return ticks / ticks_per_sec * kUsecPerSec + ticks % ticks_per_sec * kUsecPerSec / ticks_per_sec;
}

bool older_than(const Incarnation& process, std::int64_t sent_usec) {
        const std::int64_t real = now_usec(CLOCK_REALTIME);
        const std::int64_t boot = now_usec(CLOCK_BOOTTIME);
        const std::int64_t start = real - boot + start_usec(process);
        return start <= sent_usec && sent_usec <= real;
}

std::int64_t suspended_usec() {
        return now_usec(CLOCK_BOOTTIME) - now_usec(CLOCK_MONOTONIC);
}

}  // namespace sockbroker
