// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/notify_start.h"

#include <utility>

namespace sockbroker {

Result<std::unique_ptr<NotifyStart>> NotifyStart::begin(sd_event* event, OwnedFd fd, Broker& broker, hands::Crew& crew,
                                                        Audit& audit) {
        std::unique_ptr<NotifyStart> start(new NotifyStart(event, std::move(fd), broker, crew, audit));
        sd_event_source* timer = nullptr;
        const int r = sd_event_add_time_relative(
                event, &timer, CLOCK_MONOTONIC, kMostUsec, 0,
                [](sd_event_source*, std::uint64_t, void* self) {
                        return guarded([self] { static_cast<NotifyStart*>(self)->listen(); });
                },
                start.get());
        if (r < 0) {
                return fail(r, "cannot make a timer");
        }
        start->timer_.reset(timer);
        broker.reloads().when_names_are_known([self = start.get()] { self->listen(); });
        return start;
}

void NotifyStart::listen() {
        if (!fd_.valid()) {
                return;
        }
        auto intake = NotifyIntake::listen(event_, std::move(fd_), broker_, crew_);
        if (!intake) {
                audit_.note(3, intake.error().text());
                (void)sd_event_exit(event_, kExitCode);
                return;
        }
        intake_ = std::move(*intake);
}

void NotifyStart::stop() {
        fd_.reset();
        if (intake_) {
                intake_->stop();
        }
}

void NotifyStart::refuse_waiting() noexcept {
        if (intake_) {
                intake_->refuse_waiting();
        }
}

}  // namespace sockbroker
