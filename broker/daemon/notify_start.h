// SPDX-License-Identifier: LGPL-2.1-or-later
//
// When the datagram socket is listened to. Who takes a message there is decided at once, by what is known: so what
// waits in it since a broker before this one waits for the names too that may admit its senders, where sockets are to
// be held; but not for a host that does not answer. Owns the socket.
#pragma once

#include <systemd/sd-event.h>

#include <cstdint>
#include <memory>

#include "broker/audit/audit.h"
#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/notify_intake.h"
#include "broker/hands/crew.h"

namespace sockbroker {

class NotifyStart {
public:
        static constexpr std::uint64_t kMostUsec = 50'000;
        static constexpr int kExitCode = 2;  // the loop ends with it where the socket cannot be listened to

        [[nodiscard]] static Result<std::unique_ptr<NotifyStart>> begin(sd_event* event, OwnedFd fd, Broker& broker,
                                                                        hands::Crew& crew, Audit& audit);

        // See NotifyIntake.
        void stop();
        [[nodiscard]] bool is_idle() const { return intake_ == nullptr || intake_->is_idle(); }
        void refuse_waiting() noexcept;

private:
        NotifyStart(sd_event* event, OwnedFd fd, Broker& broker, hands::Crew& crew, Audit& audit)
                : event_(event), broker_(broker), crew_(crew), audit_(audit), fd_(std::move(fd)) {}
        void listen();

        sd_event* event_;
        Broker& broker_;
        hands::Crew& crew_;
        Audit& audit_;
        OwnedFd fd_;  // until it is listened to
        std::unique_ptr<NotifyIntake> intake_;
        OwnedSource timer_;
};

}  // namespace sockbroker
