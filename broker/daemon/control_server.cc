// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/control_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "broker/daemon/control_connection.h"
#include "broker/protocol/peek.h"

namespace sockbroker {

ControlServer::ControlServer(sd_event* event, Broker& broker, hands::Crew& crew, std::function<void()> on_unloaded)
        : event_(event), broker_(broker), crew_(crew), on_unloaded_(std::move(on_unloaded)) {
        rlimit descriptors{};
        if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
                max_connections_ = std::clamp<std::size_t>(descriptors.rlim_cur / 2, 1, hands::kMaxConnections);
        }
}

ControlServer::~ControlServer() = default;

void ControlServer::admit(hands::Connection accepted) {
        if (connections_.size() >= max_connections_) {
                drop(most_dispensable());
        }
        auto connection = std::make_unique<Connection>(*this, accepted);
        const bool watched = prepare_for_peeking(accepted.fd.get()) && connection->watch(accepted.fd.get());
        Connection* const key = connection.get();
        const auto at = connections_.emplace(key, std::move(connection)).first;
        try {
                per_uid_[accepted.uid]++;
        } catch (...) {
                connections_.erase(at);
                throw;
        }
        key->own(std::move(accepted.fd));  // from here on it sees to its own end
        if (!watched) {
                drop(key);
        }
}

void ControlServer::end_feeds() {
        for (const auto& entry : connections_) {
                (void)guarded([&] { entry.first->end_feed(); });
        }
}

// One user may have many uids (subuid(5)), so the limit of each cannot keep places free for others. Whoever has most of
// them gives up the one that was silent for longest.
ControlServer::Connection* ControlServer::most_dispensable() const {
        const auto rank = [this](const Connection& connection) {
                return std::pair(per_uid_.at(connection.uid()), ~connection.last_active());
        };
        return std::ranges::max_element(connections_, {}, [&](const auto& entry) { return rank(*entry.first); })->first;
}

// The peer has left: what was done for it is done.
void ControlServer::not_delivered(const Answer& answer) const {
        if (answer.undelivered) {
                (void)guarded([&] { answer.undelivered(); });
        }
        if (answer.unloaded) {
                on_unloaded_();
        }
}

void ControlServer::drop(Connection* connection) {
        const auto counted = per_uid_.find(connection->uid());
        if (counted != per_uid_.end() && --counted->second == 0) {
                per_uid_.erase(counted);
        }
        connections_.erase(connection);
}

}  // namespace sockbroker
