// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/notify_intake.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "broker/protocol/peek.h"
#include "broker/protocol/request.h"

namespace sockbroker {

namespace {

// Others have their turn after so many messages, or so long; the queue of the kernel is longer at most ten times.
constexpr int kMessagesPerWakeUp = 64;
constexpr auto kTimePerWakeUp = std::chrono::milliseconds(2);

// A long text counts as several messages, so that what waits is bounded in bytes too.
std::size_t cost_of(const Incoming& message) {
        constexpr std::size_t kTextOfOne = 512;
        return 1 + message.text.size() / kTextOfOne + message.count;
}

bool is_barrier(std::string_view text) {
        const auto request = parse_request(Channel::kNotify, text, 1);
        return request && request->verb == Verb::kBarrier;
}

// What was first in the queue at an earlier look, and is still. Of two that are alike in all of this it does not matter
// which is which.
bool is_the_same(const Message& one, const Message& other) {
        return one.credentials && other.credentials && one.credentials->pid == other.credentials->pid &&
               one.credentials->uid == other.credentials->uid && one.sent_usec == other.sent_usec &&
               one.text == other.text;
}

uid_t sender_of(const Message& message) {
        return message.credentials ? message.credentials->uid : static_cast<uid_t>(-1);
}

}  // namespace

Result<std::unique_ptr<NotifyIntake>> NotifyIntake::listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                           hands::Crew& crew) {
        std::unique_ptr<NotifyIntake> intake(new NotifyIntake(std::move(fd), broker, crew));
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, intake->fd_.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        return guarded([&] { static_cast<NotifyIntake*>(self)->drain(); });
                },
                intake.get());
        if (r < 0) {
                return fail(r, "cannot watch the notify socket");
        }
        intake->source_.reset(source);
        sd_event_source* turn = nullptr;
        const int added = sd_event_add_defer(
                event, &turn,
                [](sd_event_source*, void* self) {
                        static_cast<NotifyIntake*>(self)->go_on_some();
                        return 0;
                },
                intake.get());
        intake->turn_.reset(turn);
        if (added < 0 || sd_event_source_set_enabled(turn, SD_EVENT_OFF) < 0 ||
            sd_event_source_set_priority(turn, kBehind) < 0) {
                return fail(added, "cannot have turns for the notify socket");
        }
        return intake;
}

void NotifyIntake::drain() {
        const bool all = drain_some();
        if (all == behind_) {
                behind_ = !behind_;
                (void)sd_event_source_set_priority(source_.get(), behind_ ? kBehind : kAhead);
        }
}

bool NotifyIntake::drain_some() {
        const auto began = std::chrono::steady_clock::now();
        for (int i = 0; i < kMessagesPerWakeUp && std::chrono::steady_clock::now() - began < kTimePerWakeUp; i++) {
                auto peeked = peek(fd_.get());
                if (!peeked) {
                        return true;  // EAGAIN, or a passing shortage: the next wake-up tries again
                }
                const auto message = incoming(std::move(*peeked));
                if (const auto seen = std::exchange(seen_, nullptr)) {
                        message->counted = seen->counted && !seen->over_rate && is_the_same(*seen, *message);
                }
                if (message->has_fds) {
                        if (!take_descriptors(message)) {
                                return true;
                        }
                        continue;
                }
                if (!consume(fd_.get(), *message)) {
                        return true;
                }
                barrier_since_usec_ = 0;
                queue(message);
        }
        return false;
}

// A barrier is closed when what its sender has sent before is handled. Nobody waits for that who waits for the host, or
// whose descriptors keep hands waiting.
bool NotifyIntake::stays_at_barrier(const Incoming& message) {
        const uid_t uid = sender_of(message);
        const auto sender = senders_.find(uid);
        if (sender == senders_.end() || !sender->second.goes_on_soon() || !is_barrier(message.text)) {
                return false;
        }
        const auto now = steady_usec();
        if (barrier_since_usec_ == 0) {
                barrier_since_usec_ = now;
        }
        if (now - barrier_since_usec_ >= kMaxAtBarrierUsec) {
                return false;
        }
        at_barrier_of_ = uid;
        stop_reading();
        go_on_reading_in(barrier_since_usec_ + kMaxAtBarrierUsec - now);
        return true;
}

bool NotifyIntake::take_descriptors(const IncomingPtr& message) {
        seen_ = message;  // until a hand has it
        if (stays_at_barrier(*message)) {
                return false;
        }
        const bool kept = broker_.may_wait(*message, has_room(*message));
        Intake intake;
        broker_.plan(Channel::kNotify, message, [&](const Intake& planned) { intake = planned; });
        const auto done = [self = std::weak_ptr(self_), message](const hands::Taken& result) {
                if (result.outcome != hands::Outcome::kBusy) {
                        message->note(result);
                }
                if (const auto here = self.lock()) {
                        (*here)->taken(message, result);
                }
        };
        const auto next = [self = std::weak_ptr(self_)] {
                if (const auto here = self.lock()) {
                        (*here)->being_taken_ = nullptr;
                        (*here)->go_on_reading();
                }
        };
        if (kept) {
                push(message, false);
        }
        bool has_it = false;
        try {
                has_it = crew_.take(
                        {.charge = intake.charge, .probe = intake.probe, .holder = intake.holder, .others_wait = true},
                        done, next);
        } catch (...) {
                forget_last(*message);
                throw;  // nothing has happened: it is first in the queue still
        }
        stop_reading();
        if (has_it) {
                seen_.reset();
                being_taken_ = message.get();
                barrier_since_usec_ = 0;
        } else {
                // Until a hand has come back nobody can take what is first in the queue.
                constexpr std::int64_t kLaterUsec = 50'000;
                forget_last(*message);
                go_on_reading_in(kLaterUsec);
        }
        return false;
}

void NotifyIntake::taken(const IncomingPtr& message, const hands::Taken& result) noexcept {
        const uid_t uid = sender_of(*message);
        if (result.outcome == hands::Outcome::kBusy) {  // it is first in the queue still
                seen_ = message;
                being_taken_ = nullptr;
                forget_last(*message);
                go_on_reading();
                return;
        }
        if (being_taken_ == message.get()) {
                being_taken_ = nullptr;
                go_on_reading();
        }
        if (message->over_rate) {
                return refuse(message);
        }
        count_taken(message);
        go_on(uid);
        if (!message->settled && !succeeds([&] { broker_.park(*message); })) {
                message->fail();
        }
}

// Only now is it known how many descriptors it has.
void NotifyIntake::count_taken(const IncomingPtr& message) noexcept {
        const auto found = senders_.find(sender_of(*message));
        if (found == senders_.end()) {
                return;
        }
        Sender& sender = found->second;
        const auto waiting = std::ranges::find(sender.queue, message, &Waiting::message);
        if (waiting == sender.queue.end()) {
                return;
        }
        waiting->taken = true;
        const std::size_t cost = cost_of(*message);
        sender.cost += cost - waiting->cost;
        cost_ += cost - waiting->cost;
        waiting->cost = cost;
        const bool is_next = !sender.handling && waiting == sender.queue.begin();
        if (is_next || (sender.cost <= kMaxWaitingOfUser && cost_ <= kMaxWaiting)) {
                return;
        }
        sender.cost -= cost;
        cost_ -= cost;
        sender.queue.erase(waiting);
        if (succeeds([&] { (void)broker_.may_wait(*message, false); })) {
                refuse(message);
        }
        message->settled = true;
}

void NotifyIntake::stop_reading() {
        (void)sd_event_source_set_io_events(source_.get(), 0);
}

void NotifyIntake::go_on_reading() {
        if (being_taken_ != nullptr || ends_) {
                return;
        }
        at_barrier_of_.reset();
        again_.reset();
        (void)sd_event_source_set_io_events(source_.get(), EPOLLIN);
}

void NotifyIntake::go_on_reading_in(std::int64_t usec) {
        sd_event_source* source = nullptr;
        const int r = sd_event_add_time_relative(
                sd_event_source_get_event(source_.get()), &source, CLOCK_MONOTONIC, static_cast<std::uint64_t>(usec),
                1'000,
                [](sd_event_source*, std::uint64_t, void* self) {
                        static_cast<NotifyIntake*>(self)->go_on_reading();
                        return 0;
                },
                this);
        if (r < 0) {
                return go_on_reading();
        }
        again_.reset(source);
}

void NotifyIntake::push(const IncomingPtr& message, bool taken) {
        const std::size_t cost = cost_of(*message);
        const auto sender = senders_.try_emplace(sender_of(*message)).first;
        try {
                sender->second.queue.push_back({message, cost, taken});
        } catch (...) {
                if (sender->second.queue.empty() && !sender->second.handling) {
                        senders_.erase(sender);
                }
                throw;
        }
        sender->second.cost += cost;
        cost_ += cost;
}

void NotifyIntake::forget_last(const Incoming& message) {
        const auto sender = senders_.find(sender_of(message));
        if (sender == senders_.end() || sender->second.queue.empty() ||
            sender->second.queue.back().message.get() != &message) {
                return;  // it was not to be kept
        }
        sender->second.cost -= sender->second.queue.back().cost;
        cost_ -= sender->second.queue.back().cost;
        sender->second.queue.pop_back();
        if (sender->second.queue.empty() && !sender->second.handling) {
                senders_.erase(sender);
        }
}

// Whose first message it is need not wait, or is one of few in any case.
bool NotifyIntake::has_room(const Incoming& message) const {
        const std::size_t cost = cost_of(message);
        const auto sender = senders_.find(sender_of(message));
        return sender == senders_.end() ||
               (sender->second.cost + cost <= kMaxWaitingOfUser && cost_ + cost <= kMaxWaiting);
}

void NotifyIntake::queue(const IncomingPtr& message) {
        if (!broker_.may_wait(*message, has_room(*message))) {
                return refuse(message);
        }
        push(message, true);
        go_on(sender_of(*message));
}

void NotifyIntake::refuse(const IncomingPtr& message) noexcept {
        message->settled = true;
        (void)succeeds([&] { broker_.handle(Channel::kNotify, message, [](const Answer&) {}); });
}

void NotifyIntake::go_on(uid_t uid) noexcept {
        go_on_until(uid, std::chrono::steady_clock::now() + kTimePerWakeUp);
}

// Nobody reads an answer here, the journal has it.
void NotifyIntake::go_on_until(uid_t uid, std::chrono::steady_clock::time_point end) noexcept {
        auto sender = senders_.find(uid);
        while (sender != senders_.end() && !sender->second.handling && !sender->second.queue.empty() &&
               sender->second.queue.front().taken) {
                if (std::chrono::steady_clock::now() >= end && go_on_later(uid)) {
                        return;
                }
                const Waiting next = std::move(sender->second.queue.front());
                sender->second.queue.pop_front();
                sender->second.cost -= next.cost;
                cost_ -= next.cost;
                sender->second.handling = next.message;
                handle(uid, next.message);
                sender = senders_.find(uid);
        }
        const bool soon = sender != senders_.end() && sender->second.goes_on_soon();
        if (sender != senders_.end() && !sender->second.handling && sender->second.queue.empty()) {
                senders_.erase(sender);
        }
        if (at_barrier_of_ == uid && !soon) {
                go_on_reading();
        }
}

// False where memory does not suffice for that.
bool NotifyIntake::go_on_later(uid_t uid) noexcept {
        const auto sender = senders_.find(uid);
        if (sender == senders_.end() || sender->second.later) {
                return true;
        }
        sender->second.later = succeeds([&] { later_.push_back(uid); });
        if (sender->second.later) {
                (void)sd_event_source_set_enabled(turn_.get(), SD_EVENT_ONESHOT);
        }
        return sender->second.later;
}

// Those who have waited are many at once, where the host answers for a name again.
void NotifyIntake::go_on_some() noexcept {
        const auto end = std::chrono::steady_clock::now() + kTimePerWakeUp;
        for (bool more = true; more && !later_.empty(); more = std::chrono::steady_clock::now() < end) {
                const uid_t uid = later_.front();
                later_.pop_front();
                if (const auto sender = senders_.find(uid); sender != senders_.end()) {
                        sender->second.later = false;
                        go_on_until(uid, end);
                }
        }
        if (!later_.empty()) {
                (void)sd_event_source_set_enabled(turn_.get(), SD_EVENT_ONESHOT);
        }
}

void NotifyIntake::handle(uid_t uid, const IncomingPtr& message) noexcept {
        in_hand_ = message.get();
        const bool done = succeeds([&] {
                broker_.handle(Channel::kNotify, message, [self = std::weak_ptr(self_), uid, message](const Answer&) {
                        if (const auto here = self.lock()) {
                                (*here)->handled(uid, *message);
                        }
                });
        });
        if (!done) {
                handled(uid, *message);
        }
        in_hand_ = nullptr;
}

void NotifyIntake::handled(uid_t uid, Incoming& message) noexcept {
        message.settled = true;
        if (std::exchange(message.answered, true)) {
                return;  // a second time, of what failed for want of memory after it had answered
        }
        if (const auto sender = senders_.find(uid); sender != senders_.end()) {
                sender->second.handling = nullptr;
        }
        if (in_hand_ != &message && !go_on_later(uid)) {
                go_on(uid);
        }
}

}  // namespace sockbroker
