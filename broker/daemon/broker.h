// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The broker itself, without its event loop: a message goes in, an answer comes out. Understands it, says who has sent
// it and whether policy admits that one, and gives it to the part that it is for. Nothing that a peer sends is fatal
// here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/daemon/admissions.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/attachment.h"
#include "broker/daemon/departures.h"
#include "broker/daemon/flows.h"
#include "broker/daemon/held_sockets.h"
#include "broker/daemon/incoming.h"
#include "broker/daemon/matching.h"
#include "broker/daemon/monitor.h"
#include "broker/daemon/no_socket.h"
#include "broker/daemon/options.h"
#include "broker/daemon/policy_in_force.h"
#include "broker/daemon/rate_limit.h"
#include "broker/daemon/refusals.h"
#include "broker/daemon/registrar.h"
#include "broker/daemon/reloads.h"
#include "broker/daemon/reply_programs.h"
#include "broker/daemon/report.h"
#include "broker/daemon/routes.h"
#include "broker/daemon/service_entries.h"
#include "broker/daemon/worker.h"
#include "broker/dataplane/dataplane.h"
#include "broker/names/names.h"
#include "broker/peer/senders.h"
#include "broker/policy/files.h"
#include "broker/protocol/request.h"
#include "broker/registry/registry.h"

namespace sockbroker {

class Broker {
public:
        // What it works with. Names and the worker call it, and so end before it does; all else ends after it.
        struct Helpers {
                sd_event* event;
                Audit& audit;
                Names& names;
                Worker& worker;
                Worker& disk;  // for what waits for one
                hands::Crew& crew;
                bool has_store;  // PID 1 keeps descriptors for this process
                std::uint64_t netns_cookie;
                bool in_netns;         // this process is in the network namespace that is served
                std::string mistakes;  // in the broker's settings, as status says it
        };
        Broker(const DaemonOptions& options, const BrokerConfig& config, std::unique_ptr<Dataplane> dataplane,
               const Helpers& helpers);
        ~Broker();
        Broker(const Broker&) = delete;
        Broker& operator=(const Broker&) = delete;

        // Once: takes up what the kernel holds, then loads the policy, then takes up what PID 1 has passed.
        void start(std::vector<StoredFd> stored, std::vector<StoredFd> strangers);

        // For a message with descriptors, before they are taken off the queue: who is to do that. On `control` once
        // policy has said whether its sender is admitted, so maybe later; on `notify`, where others wait behind it, at
        // once and by what is known.
        void plan(Channel channel, const IncomingPtr& message, const std::function<void(const Intake&)>& then);
        // Calls `reply` once: before it returns, or when the host has answered for a name, or the like. Until then the
        // message is kept. One that is not settled when this returns, and was looked at by a hand, must be parked.
        void handle(Channel channel, const IncomingPtr& message, const Reply& reply);
        // Its sockets stand in entries of the staging map that no hand uses from now on.
        void park(Incoming& message);
        // A message to the datagram socket: false where it must not wait, since too many of its sender do already or
        // come too fast. Then handle() refuses it.
        [[nodiscard]] bool may_wait(Incoming& message, bool has_room);

        // Finds sockets whose last descriptor was closed, or that take no lookups any more: asks some of them, for two
        // milliseconds at most. False: all were asked since it began anew.
        [[nodiscard]] bool probe_some();
        // Of refusals that the journal does not have one by one, of events that memory did not suffice for, and of
        // families that have stayed without a socket. To be called every second or so.
        void tell_left_out();

        // The network namespace that is served was removed. It ends once nobody has anything of it open.
        [[nodiscard]] bool is_netns_removed() const { return attachment_.is_removed(); }
        // Whoever makes routes in it ends.
        void let_go_of_netns() { routes_.leave(); }

        [[nodiscard]] Reloads& reloads() { return reloads_; }
        [[nodiscard]] HeldSockets& held() { return held_; }
        [[nodiscard]] Refusals& refusals() { return refusals_; }

private:
        void handle_message(Channel channel, const IncomingPtr& message, const Reply& reply);
        // By the credentials of the message alone: no unit was looked up.
        [[nodiscard]] static Peer claimed_by(const Message& message);
        [[nodiscard]] const std::optional<Refusal>& rate_of(Channel channel, Incoming& message);
        [[nodiscard]] std::optional<Refusal> over_rate(Channel channel, uid_t uid);
        [[nodiscard]] const std::expected<Peer, Refusal>& sender_of(Incoming& message, const Request& request);
        // Of a request that whoever may write to a connection could make without knowing it.
        [[nodiscard]] static std::optional<Refusal> on_connection_of_another(const Incoming& message, Verb verb);

        // Acts when policy admits the peer to the service, with an empty name to the one that fits, and refuses
        // otherwise. Then the peer has the names that admitted it.
        using Act = std::function<void(const Admission&, const Peer&, const Reply&)>;
        void act_on(const Admissions::Verdict& verdict, const std::string& service, const Peer& peer,
                    const Reply& reply, const Act& act);
        void when_admitted(const std::string& service, const Peer& peer, std::size_t descriptors, const Reply& reply,
                           const Act& act);
        void store(const IncomingPtr& message, const Request& request, const Peer& peer, const Reply& reply);
        void remove(const Request& request, const Peer& peer, const Reply& reply);
        void retrieve(const Request& request, const Peer& peer, const Message& message, const Reply& reply);
        void drain(const Request& request, const Peer& peer, const Reply& reply);
        void unload(const Peer& peer, const Reply& reply);
        [[nodiscard]] Answer take_dispatch_away(const Peer& peer, bool withdrawn);
        [[nodiscard]] Answer monitor(const Peer& peer);

        std::unique_ptr<Dataplane> dataplane_;
        Audit& audit_;
        Names& names_;
        Registry registry_;
        PolicyInForce policy_;
        Refusals refusals_;
        ServiceEntries entries_;
        HeldSockets held_;
        Routes routes_;
        Departures departures_;
        ReplyPrograms replies_;
        Reloads reloads_;
        Flows flows_;
        Attachment attachment_;
        Report report_;
        Registrar registrar_;
        Admissions admissions_;
        Matching matching_;
        Monitors monitors_;
        NoSocket no_socket_;
        Senders senders_;
        RateLimit<uid_t> notify_rates_;
        RateLimit<uid_t> uid_rates_;
        Registry::Sweep sweep_;
};

}  // namespace sockbroker
