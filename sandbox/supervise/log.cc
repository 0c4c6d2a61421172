// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/log.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>

#include "broker/base/printable.h"

namespace sockbroker::supervise {

namespace {

using Clock = std::chrono::steady_clock;
constexpr unsigned kMost = 20;
constexpr auto kInterval = std::chrono::seconds(10);
constexpr std::size_t kLongest = 2048;  // what a pipe that is ready takes at once is PIPE_BUF

void write_if_ready(std::string_view text) {
        if (::send(STDERR_FILENO, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != ENOTSOCK) {
                return;
        }
        pollfd entry{.fd = STDERR_FILENO, .events = POLLOUT, .revents = 0};
        if (::poll(&entry, 1, 0) == 1 && (entry.revents & POLLOUT) != 0) {
                [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
        }
}

}  // namespace

void say(std::string_view message) {
        static Clock::time_point since;
        static unsigned told = 0;
        static unsigned left_out = 0;
        const auto now = Clock::now();
        if (now - since > kInterval) {
                since = now;
                told = 0;
        }
        if (++told > kMost) {
                left_out++;
                return;
        }
        std::string text = fmt::format("sockbroker-run: {}", printable(std::string(message.substr(0, kLongest))));
        if (left_out > 0) {
                text += fmt::format(" ({} more messages were left out)", left_out);
                left_out = 0;
        }
        write_if_ready(text + "\n");
}

}  // namespace sockbroker::supervise
