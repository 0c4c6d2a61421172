// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Until a service serves, or until what was displaced has nothing left to do. It asks again and again, each time on a
// new connection, so that the broker may restart in between; it changes nothing.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/net.h"
#include "broker/client/operation.h"

namespace sockbroker {

enum class WaitFor : std::uint8_t { kLive, kDrained };

class WaitOperation : public Operation {
public:
        WaitOperation(std::string service, WaitFor wanted) : service_(std::move(service)), wanted_(wanted) {}

        [[nodiscard]] ControlRequest next() override;
        void take_line(std::string_view line) override;
        // Over with "unknown-service" where no policy has it.
        [[nodiscard]] Result<Course> take(ControlAnswer& answer, std::vector<OwnedFd> received) override;
        [[nodiscard]] std::optional<Rest> failed(const Error& error) override;
        [[nodiscard]] std::string missing() const override { return missing_; }
        // Whether the broker answered the last time; else missing() says why not.
        [[nodiscard]] bool answered() const { return answered_; }

private:
        struct Socket {
                std::uint64_t cookie = 0;
                Protocol protocol = Protocol::kTcp;
                int address_family = AF_INET;
                std::string bound, unit, state;
                std::size_t flows = 0;  // of UDP that still go to it
        };
        struct Displaced {
                Socket socket;
                std::chrono::steady_clock::time_point first;  // when it was seen displaced
                bool listed = false;  // now; else it is closed, or lost its place while its owner has it still
                unsigned unseen = 0;
        };

        // Nothing left to wait for, or what is missing, in words.
        using Missing = std::optional<std::string>;
        [[nodiscard]] Result<Missing> look();
        [[nodiscard]] Missing live() const;
        [[nodiscard]] Result<Missing> drained();
        [[nodiscard]] std::string own_unit() const;
        void note();
        void fail_look(std::string why);
        [[nodiscard]] Rest rest() const;

        std::string service_;
        WaitFor wanted_;
        std::string missing_;
        bool answered_ = false;
        std::chrono::steady_clock::time_point asked_;
        std::vector<Socket> sockets_;  // of the answer to the last VERB=list
        // A service without a socket may be a typing mistake: asked about once, since a policy that loses it later
        // takes its sockets away as well.
        bool known_ = false, asks_whether_known_ = false, named_ = false;
        std::optional<std::string> unit_;               // decided by the first look; empty: the sockets of all
        std::map<std::uint64_t, Displaced> displaced_;  // by cookie
};

}  // namespace sockbroker
