// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/notify_intake.h"

#include <chrono>

#include "broker/protocol/message.h"

namespace sockbroker {

namespace {

// Others have their turn after so many messages, or so long; the queue of the kernel is longer at most ten times.
constexpr int kMessagesPerWakeUp = 64;
constexpr auto kTimePerWakeUp = std::chrono::milliseconds(2);

}  // namespace

Result<std::unique_ptr<NotifyIntake>> NotifyIntake::listen(sd_event* event, OwnedFd fd, Broker& broker,
                                                           Closer& closer) {
        std::unique_ptr<NotifyIntake> intake(new NotifyIntake(std::move(fd), broker, closer));
        sd_event_source* source = nullptr;
        const int r = sd_event_add_io(
                event, &source, intake->fd_.get(), EPOLLIN,
                [](sd_event_source*, int, std::uint32_t, void* self) {
                        static_cast<NotifyIntake*>(self)->drain();
                        return 0;
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
                // Nobody reads an answer here, the journal has it.
                static_cast<void>(broker_.handle(Channel::kNotify, *message));
                closer_.close(std::move(message->fds));
                closer_.close(std::move(message->dropped));
        }
        return false;
}

}  // namespace sockbroker
