// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See conversation.h.
#include "broker/lib/conversation.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

namespace sockbroker {
namespace {

// connect(2) of a UNIX socket has no POLLOUT to wait for while the broker's backlog is full.
constexpr auto kConnectAgain = std::chrono::milliseconds(10);
// Of one answer in a row, so that the caller's loop goes on.
constexpr unsigned kMostRecords = 16;

Result<void> add(int epoll, int fd, int how, std::uint32_t events) {
        epoll_event event{.events = events, .data = {.fd = fd}};
        if (epoll_ctl(epoll, how, fd, &event) < 0) {
                return fail_errno("cannot watch the connection to the broker");
        }
        return {};
}

void set_timer(int timer, std::optional<Conversation::Clock::time_point> at) {
        itimerspec when{};
        if (at) {
                // steady_clock is CLOCK_MONOTONIC; 0 would disarm it.
                const auto span = std::max<std::int64_t>(
                        1, std::chrono::duration_cast<std::chrono::nanoseconds>(at->time_since_epoch()).count());
                when.it_value = {.tv_sec = span / 1'000'000'000, .tv_nsec = span % 1'000'000'000};
        }
        (void)timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, nullptr);  // fails only for a bad argument
}

}  // namespace

Result<Conversation> Conversation::make(std::string runtime_dir) {
        Conversation made;
        made.runtime_dir_ = std::move(runtime_dir);
        made.epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
        made.timer_.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
        if (!made.epoll_ || !made.timer_) {
                return fail_errno("cannot make an epoll or timer descriptor");
        }
        if (auto added = add(made.epoll_.get(), made.timer_.get(), EPOLL_CTL_ADD, EPOLLIN); !added) {
                return std::unexpected(added.error());
        }
        return made;
}

void Conversation::begin(std::unique_ptr<Operation> operation, std::optional<Clock::time_point> deadline) {
        operation_ = std::move(operation);
        deadline_ = deadline;
        next_look_ = Clock::now();
        set_timer(timer_.get(), next_look_);
}

// A child that was forked meanwhile has the connection too, in epoll and open: closing it here alone would end neither.
// Both calls can fail only where there is nothing to end.
void Conversation::hang_up() {
        exchange_.reset();
        received_.clear();
        if (watched_ != 0) {
                (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection_.get(), nullptr);
                watched_ = 0;
        }
        if (connection_) {
                (void)shutdown(connection_.get(), SHUT_RDWR);
                connection_.reset();
        }
}

void Conversation::cancel() {
        hang_up();
        operation_.reset();
        set_timer(timer_.get(), std::nullopt);
}

void Conversation::rest(Clock::duration span) {
        hang_up();
        next_look_ = Clock::now() + span;
}

Result<void> Conversation::give_up_look(const Error& error) {
        const auto again = operation_->failed(error);
        if (!again) {
                return std::unexpected(error);
        }
        rest(*again);
        return {};
}

Result<bool> Conversation::connect() {
        if (Clock::now() < next_look_) {
                return false;
        }
        auto made = open_control(runtime_dir_, std::chrono::milliseconds(0));
        if (!made && made.error().errnum == EAGAIN) {
                rest(kConnectAgain);
                return false;
        }
        if (!made) {
                if (auto given_up = give_up_look(made.error()); !given_up) {
                        return std::unexpected(given_up.error());
                }
                return false;
        }
        connection_ = std::move(*made);
        return true;
}

Result<std::optional<ControlAnswer>> Conversation::advance() {
        for (unsigned records = 0; records < kMostRecords;) {
                if (!connection_) {
                        const auto connected = connect();
                        if (!connected || !*connected) {
                                return connected ? Result<std::optional<ControlAnswer>>(std::nullopt)
                                                 : std::unexpected(connected.error());
                        }
                }
                if (!exchange_) {
                        ControlRequest question = operation_->next();
                        exchange_.emplace(connection_.get(), control_path(runtime_dir_), std::move(question.request),
                                          std::move(question.fds));
                }
                auto done = exchange_->advance([&](std::string_view line) { operation_->take_line(line); }, &received_);
                if (!done) {
                        if (auto given_up = give_up_look(done.error()); !given_up) {
                                return std::unexpected(given_up.error());
                        }
                        return std::nullopt;
                }
                if (auto answer = std::move(done->answer)) {
                        exchange_.reset();
                        const auto course = operation_->take(*answer, std::exchange(received_, {}));
                        if (!course) {
                                return std::unexpected(course.error());
                        }
                        if (course->over) {
                                return answer;
                        }
                        if (course->rest > Operation::Rest(0)) {
                                rest(course->rest);
                                return std::nullopt;
                        }
                } else if (!done->moved) {
                        return std::nullopt;
                }
                ++records;
        }
        return std::nullopt;
}

Result<void> Conversation::watch() {
        std::optional<Clock::time_point> at = deadline_;
        if (!connection_) {
                at = at ? std::min(*at, next_look_) : next_look_;
        } else if (const short wanted = exchange_ ? exchange_->events() : short{POLLOUT}; wanted != watched_) {
                const int how = watched_ == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
                const auto events = wanted == POLLOUT ? EPOLLOUT : EPOLLIN;
                if (auto added = add(epoll_.get(), connection_.get(), how, events); !added) {
                        return added;
                }
                watched_ = wanted;
        }
        set_timer(timer_.get(), at);
        return {};
}

Result<std::optional<ControlAnswer>> Conversation::step() {
        Result<std::optional<ControlAnswer>> came = advance();
        if (came && !*came && deadline_ && Clock::now() >= *deadline_) {
                const std::string missing = operation_->missing();
                came = missing.empty() ? Result<std::optional<ControlAnswer>>(no_answer_in_time(runtime_dir_))
                                       : fail(ETIMEDOUT, fmt::format("timed out: {}", missing));
        }
        if (came && !*came) {
                if (auto watched = watch(); !watched) {
                        came = std::unexpected(watched.error());
                }
        }
        if (!came || *came) {
                cancel();
        }
        return came;
}

}  // namespace sockbroker
