// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/process_state.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <string>

#include "broker/base/owned_fd.h"

namespace sockbroker::hands {

namespace {

constexpr int kUserTime = 14;  // fields, counted from 1
constexpr int kSystemTime = 15;

}  // namespace

std::optional<ProcessState> parse_process_state(std::string_view stat) {
        const auto name_end = stat.rfind(") ");  // the name may hold anything
        if (name_end == std::string_view::npos) {
                return std::nullopt;
        }
        stat.remove_prefix(name_end + 2);
        ProcessState state{.runnable = stat.starts_with('R')};
        std::int64_t ticks = 0;
        for (int field = 3; field <= kSystemTime; field++) {
                const auto word = stat.substr(0, stat.find(' '));
                if (word.empty() || word.size() == stat.size()) {
                        return std::nullopt;
                }
                stat.remove_prefix(word.size() + 1);
                std::int64_t value = 0;
                if (field >= kUserTime &&
                    std::from_chars(word.data(), word.data() + word.size(), value).ptr == word.data() + word.size()) {
                        ticks += value;
                }
        }
        constexpr std::int64_t kTicksPerSecond = 100;  // USER_HZ, of every architecture
        state.cpu_usec = ticks * (1'000'000 / kTicksPerSecond);
        return state;
}

std::optional<ProcessState> state_of(pid_t pid) {
        const OwnedFd fd(open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
        std::array<char, 1024> text;
        const ssize_t size = fd ? read(fd.get(), text.data(), text.size()) : -1;
        return size > 0 ? parse_process_state({text.data(), static_cast<std::size_t>(size)}) : std::nullopt;
}

}  // namespace sockbroker::hands
