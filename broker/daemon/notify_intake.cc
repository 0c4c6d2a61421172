// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/notify_intake.h"

#include <chrono>

#include "broker/protocol/message.h"

namespace sockbroker {

namespace {

// Others have their turn after so many messages, or so long; the queue of the kernel is longer at most ten times.
constexpr int kMessagesPerWakeUp = 64;
constexpr auto kTimePerWakeUp = std::chrono::milliseconds(2);

std::size_t cost_of(const Message& message) {
        return 1 + message.fds.size() + message.dropped.size();
}

}  // namespace

Result<std::unique_ptr<NotifyIntake>> NotifyIntake::listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                           Closer& closer) {
        std::unique_ptr<NotifyIntake> intake(new NotifyIntake(std::move(fd), broker, closer));
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
                auto message = receive(fd_.get());
                if (!message) {
                        return true;  // EAGAIN, or a passing shortage: the next wake-up tries again
                }
                take(to_be_closed(std::move(*message), closer_));
        }
        return false;
}

void NotifyIntake::take(MessagePtr message) {
        const uid_t uid = message->credentials ? message->credentials->uid : static_cast<uid_t>(-1);
        const auto waits = waiting_.find(uid);
        if (waits == waiting_.end()) {
                return handle(uid, message);
        }
        const std::size_t cost = cost_of(*message);
        Behind& behind = waits->second;
        if (behind.cost + cost > kMaxBehindOfUser || cost_ + cost > kMaxBehind) {
                return broker_.drop(*message);
        }
        behind.cost += cost;
        cost_ += cost;
        behind.messages.push_back(std::move(message));
}

// Nobody reads an answer here, the journal has it.
void NotifyIntake::handle(uid_t uid, const MessagePtr& message) {
        const auto answered = std::make_shared<bool>(false);
        const auto later = std::make_shared<bool>(false);
        broker_.handle(Channel::kNotify, message, [self = std::weak_ptr(self_), uid, answered, later](const Answer&) {
                *answered = true;
                if (const auto intake = self.lock(); intake && *later) {
                        (*intake)->go_on(uid);
                }
        });
        *later = !*answered;
        if (*later) {
                waiting_.try_emplace(uid);
        }
}

// With what is behind, until one of them has to wait again.
void NotifyIntake::go_on(uid_t uid) {
        auto node = waiting_.extract(uid);
        if (node.empty()) {
                return;
        }
        Behind& behind = node.mapped();
        while (!behind.messages.empty() && !waiting_.contains(uid)) {
                const MessagePtr next = std::move(behind.messages.front());
                behind.messages.pop_front();
                behind.cost -= cost_of(*next);
                cost_ -= cost_of(*next);
                handle(uid, next);
        }
        if (const auto again = waiting_.find(uid); again != waiting_.end()) {
                again->second = std::move(behind);
        }
}

}  // namespace sockbroker
