// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The broker itself, without its event loop: a message goes in, an answer comes out. Brings the rooms together in the
// order of the protocol: understood, identified, judged, installed, told. Nothing that a peer sends is fatal here.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/audit/audit.h"
#include "broker/base/event.h"
#include "broker/daemon/admissions.h"
#include "broker/daemon/flows.h"
#include "broker/daemon/incoming.h"
#include "broker/daemon/merged_folders.h"
#include "broker/daemon/monitor.h"
#include "broker/daemon/names.h"
#include "broker/daemon/no_socket.h"
#include "broker/daemon/options.h"
#include "broker/daemon/places.h"
#include "broker/daemon/rate_limit.h"
#include "broker/daemon/refusal_log.h"
#include "broker/daemon/rows.h"
#include "broker/dataplane/dataplane.h"
#include "broker/peer/senders.h"
#include "broker/policy/decide.h"
#include "broker/policy/files.h"
#include "broker/protocol/message.h"
#include "broker/protocol/request.h"
#include "broker/registry/registry.h"
#include "broker/udp/replies.h"

namespace sockbroker {

inline constexpr const char* kGoneWhy = "its last descriptor was closed, or its owner has shut it down";

struct Answer {
        ResultCode code = ResultCode::kOk;
        std::string message;
        std::vector<std::string> warnings;
        std::string_view cause;  // CAUSE=: the key of the request that a refusal is about, where programs look at that
        Rows rows;               // may be empty
        std::vector<OwnedFd> fds;  // go with the RESULT= record
        struct {
                std::string service;
                std::vector<std::uint64_t> cookies;
        } held;                                            // go with it too, from the holder that keeps them
        std::function<void()> undelivered;                 // called if the peer left before that
        std::shared_ptr<Monitors::Reader> feed = nullptr;  // goes on for as long as the peer stays
        bool unloaded = false;                             // dispatch was taken away: the daemon ends after this answer
};
using Reply = std::function<void(Answer)>;

// Replies with what `make` returns, or at least that it could not be made: who waits for a later answer has no
// deadline.
template <class Make>
void reply_with(const Reply& reply, const Make& make) {
        bool replied = false;
        (void)guarded([&] {
                reply(make());
                replied = true;
        });
        if (!replied) {
                (void)guarded([&] { reply(Answer{.code = ResultCode::kInternal, .message = {}}); });
        }
}

class Holds;
class Routes;
struct RoutePlan;
enum class HoldEnd : std::uint8_t;
struct Held;
class Worker;

// Names of accounts that have no answer, for people.
[[nodiscard]] std::string describe(const Names::Silent& silent);

// Of a registration, without a message.
[[nodiscard]] Entry entry_of(Action action, const std::string& service, const Registration& registration);

class Broker {
public:
        // Takes up what the kernel holds and loads the policy: the one of the folders, else the copy of the one last
        // taken, else none at all (degraded). Fails only where the kernel does.
        [[nodiscard]] static Result<std::unique_ptr<Broker>> start(DaemonOptions options, const BrokerConfig& config,
                                                                   std::unique_ptr<Dataplane> dataplane, Audit& audit,
                                                                   Names& names, std::uint64_t netns_cookie);
        ~Broker();
        Broker(const Broker&) = delete;
        Broker& operator=(const Broker&) = delete;

        // For a message with descriptors, before they are taken off the queue: who is to do that. On `control` once
        // policy has said whether its sender is admitted, so maybe later; on `notify`, where others wait behind it, at
        // once and by what is known.
        void plan(Channel channel, const IncomingPtr& message, const std::function<void(const Intake&)>& then);

        // Calls `reply` once: before it returns, or when the host has answered for a name, or the like. Until then the
        // message is kept. One that is not settled when this returns, and was looked at by a hand, must be parked.
        void handle(Channel channel, const IncomingPtr& message, const Reply& reply);
        // Its sockets stand in entries of the staging map that no hand uses from now on.
        void park(Incoming& message);
        [[nodiscard]] int staging_fd() const { return dataplane_->staging_fd(); }

        // A message to the datagram socket that is not handled, since too many of its sender wait already.
        void drop(const Message& message);

        // Loads the policy of the folders anew; rows of the answer are its diagnostics. Asked while another one is on
        // its way, it begins after that.
        void reload(Reply reply, std::int64_t confirm_usec = 0);
        // With `confirm_usec` the policy before comes back unless keep() is called in time. To be called every second
        // or so.
        void go_back_if_not_kept();
        // From now on what takes long in a reload is done there. It must end before the broker does.
        void use(Worker& worker) { worker_ = &worker; }

        // From now on sockets are held, those among `stored` that still count too. It must end before the broker does.
        void use(Holds& holds) { holds_ = &holds; }
        void take_up_holds(std::vector<StoredFd> stored);
        // From now on routes are made. It must end before the broker does.
        void use(Routes& routes);
        [[nodiscard]] const Registry& registry() const { return registry_; }
        // Closes what PID 1 keeps for the broker and the broker does not know.
        void drop_strangers(std::vector<StoredFd> strangers);
        // The holder of the service was left behind, or died.
        void on_lost(const std::string& service, const std::vector<std::uint64_t>& cookies);
        // The hooks of Holds.
        void on_gone(const Held& held);
        void on_there(const Held& held);
        void on_hold_end(const Held& held, HoldEnd why);

        // Looks the names of Interface= up again, and installs the rules anew if one means another interface now. Says
        // how long that took the last time, in microseconds.
        std::uint64_t refresh_interfaces();

        // Finds sockets whose last descriptor was closed, or that take no look-ups any more: asks some of them, for two
        // milliseconds at most. False: all were asked since it began anew.
        [[nodiscard]] bool probe_some();

        // Of refusals that the journal does not have one by one, and of events that memory did not suffice for.
        void tell_left_out();

        [[nodiscard]] std::string status_text() const;  // STATUS= for systemd, one printable line
        // Called when it may have changed.
        void on_status(std::function<void()> changed) { on_status_ = std::move(changed); }
        void note(int priority, std::string message);  // one entry in the journal, of no service

private:
        Broker(DaemonOptions options, const BrokerConfig& config, std::unique_ptr<Dataplane> dataplane, Audit& audit,
               Names& names);

        void handle_message(Channel channel, const IncomingPtr& message, const Reply& reply);
        // By the credentials of the message alone: no unit was looked up.
        [[nodiscard]] static Peer claimed_by(const Message& message);
        [[nodiscard]] const std::optional<Refusal>& rate_of(Channel channel, Incoming& message);
        [[nodiscard]] const std::expected<Peer, Refusal>& sender_of(Incoming& message, const Request& request);
        [[nodiscard]] bool is_kept(const Service& service) const;

        // Empty: taken. Otherwise why not.
        [[nodiscard]] std::string apply(Policy policy);
        struct Loaded {
                std::vector<PolicyFile> files;
                std::optional<Policy> policy;  // none if anything is wrong
                std::vector<Diagnostic> diagnostics;
                // By a file, be it empty. What no file supports is taken, for nobody knows better, but never replaces
                // the copy of the policy last taken: a mount that is missing must not be what is left of a policy.
                bool supported = false;
                std::string digest;      // of the files
                std::size_t errors = 0;  // in all, see findings.h

                bool add_errors(std::vector<Diagnostic> more);  // whether there are any
        };
        // Safe in another thread: reads what never changes.
        [[nodiscard]] Loaded load_folders() const;
        void load_at_start();
        void take(std::shared_ptr<const Policy> policy, Interfaces interfaces,
                  const std::vector<Departure>& departures);
        // Takes away what is not admitted any more, by what is known of names.
        void revoke_unadmitted();
        void ask_names_after_start();

        // A reload in its steps: read and install are the worker's.
        struct Change;
        void in_worker(const std::shared_ptr<Change>& change, void (Broker::*job)(Change&) const,
                       void (Broker::*then)(const std::shared_ptr<Change>&));
        void begin_reload();
        void read_change(Change& change) const;
        void ask_names(const std::shared_ptr<Change>& change);
        void find_doubtful(const Accounts& accounts, Change& change) const;
        [[nodiscard]] static std::vector<Diagnostic> warnings_of(const Change& change);
        void check_names(Change& change) const;
        void number_change(const std::shared_ptr<Change>& change);
        void install_change(Change& change) const;
        void finish_change(const std::shared_ptr<Change>& change);
        void refuse_change(const std::shared_ptr<Change>& change, const std::string& why);
        // What to answer; the reason of `degraded` has the first error too.
        [[nodiscard]] std::string tell_refused(const Change& change, const std::string& why);
        static void answer_change(Change& change, ResultCode code, const std::string& message);
        void end_change();

        // What a reload would do, and nothing else.
        // Rows of the sockets that go when that policy comes into force.
        [[nodiscard]] std::string sockets_lost_to(const Policy& policy) const;
        void diff(Reply reply);
        void begin_diff();
        void finish_diff(const std::shared_ptr<Change>& change);
        void compare(Change& change) const;
        // A policy on trial, reload --confirm=.
        void begin_trial(Change& change);
        void finish_back(const std::shared_ptr<Change>& change, const std::vector<Departure>& departures);
        void keep(const Reply& reply);
        void note_refused(const std::string& digest);

        // For requests that change something; empty: go on. Nothing was looked up before.
        [[nodiscard]] std::optional<Refusal> over_rate(Channel channel, uid_t uid);
        [[nodiscard]] Answer refuse(const Refusal& refusal, const Peer& peer, const std::string& service);
        // Acts when policy admits the peer to the service, with an empty name to the one that fits, and refuses
        // otherwise. Then the peer has the names that admitted it.
        using Act = std::function<void(const Admission&, const Peer&, const Reply&)>;
        void act_on(const Admissions::Verdict& verdict, const std::string& service, const Peer& peer,
                    const Reply& reply, const Act& act);
        void when_admitted(const std::string& service, const Peer& peer, std::size_t descriptors, const Reply& reply,
                           const Act& act);
        void when_judged(const Incoming& message, const std::string& service, const Peer& peer, const Reply& reply,
                         const Act& act);
        [[nodiscard]] Answer store(const Admission& admission, const Incoming& message, const Peer& peer);
        [[nodiscard]] static std::expected<std::vector<Offer>, Refusal> offers_of(const Incoming& message);
        void remove(const Request& request, const Peer& peer, const Reply& reply);
        [[nodiscard]] Answer remove_of(const std::string& name, bool any, const Peer& peer);
        void unload(const Peer& peer, const Reply& reply);
        [[nodiscard]] Answer take_dispatch_away(const Peer& peer, bool withdrawn);
        // VERB=drain and VERB=undrain.
        void drain(const Request& request, const Peer& peer, const Reply& reply);
        void take_routes(std::shared_ptr<const RoutePlan> plan);
        // Sockets of the service came or went.
        void tell_routes(const std::string& service);
        // `status` and `list` ask every socket where there are so many at most. Beyond, they tell what the last round
        // of probe_some() has found: every client may ask them, as often as it likes.
        static constexpr std::size_t kAskAll = 256;
        void probe_liveness();
        [[nodiscard]] Answer explain(const Request& request);
        [[nodiscard]] Answer monitor(const Peer& peer);
        [[nodiscard]] Answer hold_over_stop(const Request& request, const Peer& peer);
        // VERB=prepare: what UdpReply=original gives a unit before it has a socket.
        void prepare(const Request& request, const Peer& peer, const Reply& reply);
        [[nodiscard]] Result<void> prepare_replies(const Service& service, const Peer& peer,
                                                   std::span<const SocketFacts> sockets);
        [[nodiscard]] std::string tell_no_replies(const Service& service, const Peer& peer, const Error& error);
        void follow_replies();
        // VERB=match: goes through those who would take the socket, the best first, until one admits the peer.
        struct Match;
        void match(const WantedBind& bind, const Peer& peer, const Reply& reply);
        void match_next(const std::shared_ptr<Match>& match);
        void match_end(const Match& match);
        void retrieve(const Request& request, const Peer& peer, const Message& message, const Reply& reply);
        [[nodiscard]] Answer give_back(const Admission& admission, const Peer& peer, const OwnedFd& process);

        void hold(const Service& service, const std::vector<CommitResult>& handed, const Message& message);
        // Sockets that PID 1 has passed, on their way to the holder of their service.
        struct Adoption {
                std::vector<std::uint64_t> cookies;
                std::vector<OwnedFd> sockets;
                hands::Charge charge;
        };
        void adopt(const std::string& service, Adoption adoption);
        void drop_lost_holds(const std::string& service);
        void follow_holds();
        void end_hold(const Held& held, const std::string& why);
        [[nodiscard]] const Registration* find_registration(const std::string& service, std::uint64_t cookie) const;
        [[nodiscard]] std::vector<std::string> warnings() const;
        [[nodiscard]] Rows status_rows();
        [[nodiscard]] Rows list_rows();
        [[nodiscard]] Rows binding_rows(bool counted_only) const;  // of services with Accounting=binding

        void tell_departures(const Result<std::vector<Departure>>& departures, Action action, const std::string& why);
        void tell_handed(const Admission& admission, const std::vector<CommitResult>& handed);
        // What is probably not as it was meant, of a registration that was taken; the journal has it too.
        [[nodiscard]] std::vector<std::string> warn(const Admission& admission, const Peer& peer,
                                                    const std::vector<SocketFacts>& sockets);
        void tell_diagnostics(const std::vector<Diagnostic>& all, std::size_t errors);

        // How the last socket of a service went, for `explain`: of the services that lost one lately.
        struct LastGone {
                std::int64_t usec = 0;  // since the epoch
                std::string why;
        };
        static constexpr std::size_t kGoneRemembered = 1024;
        void remember_gone(const std::string& service, const std::string& why);
        // How a service that has no socket gets one.
        [[nodiscard]] std::vector<std::string> how_to_serve_again(const Service& service) const;

        const DaemonOptions options_;
        const MergedFolders folders_;
        PolicyLimits limits_;
        std::unique_ptr<Dataplane> dataplane_;
        Audit& audit_;
        Registry registry_;
        Flows flows_;
        UdpReplies replies_;
        Names& names_;
        Senders senders_;
        Admissions admissions_;
        Monitors monitors_;
        NoSocket no_socket_;
        RefusalLog refusals_;
        RateLimit<uid_t> notify_rates_;
        RateLimit<uid_t> uid_rates_;
        RateLimit<std::string> service_rates_;
        std::uint64_t gone_ = 0;  // sockets that were found closed, shut down or connected
        std::map<std::string, LastGone, std::less<>> last_gone_;
        Registry::Sweep sweep_;
        std::shared_ptr<const Policy> policy_ = std::make_shared<Policy>();
        // What answers are read from. A reader may be slow, and there may be many: when a policy is replaced for the
        // second time they lose it, so that no more than two are kept.
        struct Snapshot {
                std::shared_ptr<const Policy> policy;
        };
        std::shared_ptr<Snapshot> snapshot_ = std::make_shared<Snapshot>(policy_);
        std::weak_ptr<Snapshot> snapshot_before_;
        Interfaces interfaces_;  // as the rules in force have them
        std::uint64_t netns_cookie_ = 0;
        std::int64_t started_usec_ = 0;
        std::int64_t policy_since_usec_ = 0;
        Tally tally_;
        std::string policy_digest_;
        std::string refused_digest_;  // of the policy that was refused last; empty: none was
        std::int64_t refused_since_usec_ = 0;
        struct Trial {
                std::shared_ptr<const Policy> before;
                std::string digest_before;
                std::vector<PolicyFile> files;  // of the one on trial
                std::int64_t until_usec = 0;    // CLOCK_MONOTONIC
        };
        std::optional<Trial> trial_;
        std::vector<Reply> waiting_diffs_;
        std::int64_t waiting_confirm_usec_ = 0;
        void degrade(std::string why);
        std::string degraded_;
        std::int64_t degraded_since_usec_ = 0;
        std::function<void()> on_status_;
        Holds* holds_ = nullptr;
        Routes* routes_ = nullptr;
        std::shared_ptr<const RoutePlan> route_plan_;  // of the policy in force; null: none could be taken
        Worker* worker_ = nullptr;
        bool changing_ = false;       // the worker has rules in hand
        std::vector<Reply> waiting_;  // for the reload after that
        bool interfaces_changed_ = false;
        std::uint64_t interfaces_took_usec_ = 0;
};

}  // namespace sockbroker
