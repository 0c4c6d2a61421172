// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which sockets serve which service, and who registered them. The truth about what lives is the sockmap's; this is
// the broker's memory of it, rebuilt from the kernel after a start. Keeps no descriptor: the kernel's last close ends
// a registration. Judges nobody: the caller has asked policy before.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/dataplane/dataplane.h"
#include "broker/peer/peer.h"
#include "broker/policy/decide.h"
#include "broker/policy/policy.h"
#include "broker/protocol/result_code.h"
#include "broker/socket/facts.h"

namespace sockbroker {

struct Registration {
        Slot slot = 0;
        std::uint64_t cookie = 0;
        std::int64_t since_usec = 0;  // strictly increasing over all registrations: the order of hand-overs
        Protocol protocol = Protocol::kTcp;
        SocketFamily family = SocketFamily::kIpv4;
        Assignment serves;
        Endpoint bound;
        Peer registrant;
        std::int64_t registered_usec = 0;  // CLOCK_MONOTONIC: when this registrant got it
        // Since when its service is gone and the broker holds it for the next instance (CLOCK_MONOTONIC); 0: it is not.
        std::int64_t gone_usec = 0;
        std::int64_t hold_until_usec = 0;  // CLOCK_MONOTONIC: a stop on purpose until then counts as a crash

        [[nodiscard]] bool held() const { return gone_usec != 0; }

        [[nodiscard]] bool serves_in(Protocol p, Family f) const {
                return p == protocol && (f == Family::kIpv4 ? serves.ipv4 : serves.ipv6);
        }
};

struct Departure {
        std::string service;
        Registration registration;
};

// Of many registrations, those that went, and the first error that kept others from going. What went is always told,
// whatever memory there is.
struct Removal {
        std::vector<Departure> departures;
        std::optional<Error> error;

        void blame(Error one) noexcept {
                if (!error) {
                        error = std::move(one);
                }
        }
};

// So short that it needs no memory itself.
[[nodiscard]] inline Error no_memory() noexcept {
        return {.errnum = 0, .message = "out of memory"};
}

// One socket of a message that policy has let through.
struct Offer {
        int fd = -1;              // none: it stands in the staging map
        std::uint32_t entry = 0;  // there
        int errnum = 0;           // why it does not
        SocketFacts facts;
        Assignment serves;
        bool inherit = false;  // the service has it: it keeps its place and what it serves, and is the peer's

        [[nodiscard]] bool serves_in(Family f) const { return f == Family::kIpv4 ? serves.ipv4 : serves.ipv6; }
};

// What commit() did with one socket.
struct CommitResult {
        struct Narrowed {
                Registration old;
                Family family;
        };
        Registration added;
        std::vector<Registration> displaced;  // served before and do not any more
        std::vector<Narrowed> narrowed;       // served this family before, and go on with the other
        bool inherited = false;               // it was there, in the place that it has
};

// How the packets of a service are distributed over its sockets.
struct Distribution {
        bool share = false;       // all serve, each flow has one of them; otherwise the newest serves
        bool reuse_port = false;  // within a SO_REUSEPORT group the kernel chooses
        bool stay = false;        // a flow of UDP goes on to the socket that has served it
        bool reply = false;       // answers over UDP leave from the address that was asked

        bool operator==(const Distribution&) const = default;
};

// Where a pass over the registrations of a service has stopped: after this one, in the order in which they are tried.
struct Cursor {
        std::int64_t since_usec = INT64_MAX;
        bool held = false;
};

class Registry {
public:
        explicit Registry(Dataplane& dataplane) : dataplane_(dataplane) {}

        // Rebuilds everything from the kernel. Half-done transactions of a broker that died are undone.
        void take_up();

        // Installs the policy's rules in one step, then takes away the services that it no longer has. On failure
        // nothing has changed. Returns the registrations that went.
        [[nodiscard]] Result<Removal> set_policy(const Policy& policy, const Interfaces& interfaces);

        // The same in steps, of which only install() takes long. It may run in another thread, while registrations come
        // and go, but no other step; then finish_change() or, where it failed or what came before it failed or threw,
        // abandon_change() follows.
        struct Change {
                std::map<std::string, ServiceId, std::less<>> ids;
                std::vector<ServiceId> fresh;
                std::vector<std::uint32_t> counters;
                bool in_force = false;
                std::string_view next;  // what finish_change() goes on with
        };
        // Looks at so many services at most, for there may be tens of thousands. False: it is to be called again.
        [[nodiscard]] Result<bool> begin_change(Change& change, const Policy& policy, std::size_t most);
        [[nodiscard]] Result<void> install(const Change& change, const Policy& policy,
                                           const Interfaces& interfaces) const;
        // The rules are in force, so this does not fail: what memory does not suffice for is left for the change after
        // this one, and told by the error. The first call sees to all services that have sockets, and so much of the
        // others as it may.
        [[nodiscard]] bool finish_change(Change& change, const Policy& policy, std::size_t most,
                                         Removal& removal) noexcept;
        void abandon_change(const Change& change) noexcept;

        // Takes away each registration of the service that is `gone`, or nothing where that fails.
        using Gone = std::function<bool(const std::string& service, const Registration&)>;
        [[nodiscard]] Result<std::vector<Departure>> remove(const std::string& service, const Gone& gone);
        // The same of each service for itself.
        [[nodiscard]] Removal remove_all(const Gone& gone);

        // Asks the kernel which sockets of the service still take lookups, and forgets those that were closed, shut
        // down or connected by their owners.
        [[nodiscard]] Result<std::vector<Departure>> refresh(const std::string& service);
        // The same for those alone that a hand-over would displace, however many others are draining.
        [[nodiscard]] Result<std::vector<Departure>> refresh_holders(const std::string& service);
        [[nodiscard]] Removal refresh_all();
        // The same for all, a part at a time: goes on where the sweep stands until the time is up. Starts anew when it
        // is done, or has met an error.
        struct Sweep {
                std::string service;
                Cursor cursor;  // within it
                bool done = true;
        };
        [[nodiscard]] Removal refresh_some(Sweep& sweep, std::chrono::steady_clock::time_point until);

        // What check_occupancy() wants to know, for these offers.
        [[nodiscard]] Occupancy occupancy(const std::string& service, const Peer& peer,
                                          std::span<const Offer> offers) const;

        // Services that have another socket bound to the very same address and port: the kernel makes such sockets one
        // SO_REUSEPORT group, for it lets none bind there that is not of the same user and asks for that.
        [[nodiscard]] std::vector<std::string> bound_alike(const std::string& service, const SocketFacts& socket) const;

        // Displaced sockets beyond so many, the oldest of them.
        [[nodiscard]] Removal forget_displaced(const std::string& service, std::size_t most);
        // Where fewer slots than that are free: displaced sockets are forgotten, the oldest of whoever has most of them
        // first. So they never keep anybody from registering.
        [[nodiscard]] Removal make_room(std::size_t slots);
        // Those that were closed and not found yet take slots too.
        [[nodiscard]] bool has_room(std::size_t slots) const { return dataplane_.free_slots() >= slots; }

        [[nodiscard]] bool has(const std::string& service, std::uint64_t cookie) const;

        // One transaction: all offers into free slots, but for those that keep theirs, then one switch. A failure
        // changes nothing.
        [[nodiscard]] std::expected<std::vector<CommitResult>, Refusal> commit(const Service& service, const Peer& peer,
                                                                               std::span<const Offer> offers);

        // Its service went at `gone_usec` (CLOCK_MONOTONIC), and a descriptor of it is held; 0: it came back.
        [[nodiscard]] Result<void> set_gone(const std::string& service, std::uint64_t cookie, std::int64_t gone_usec);
        // A stop on purpose until then (CLOCK_MONOTONIC) counts as a crash, once: the next registrant ends that; 0: it
        // does not.
        [[nodiscard]] Result<void> set_hold_until(const std::string& service, std::uint64_t cookie,
                                                  std::int64_t until_usec);
        // A held socket is this peer's from now on, and live. It keeps its place among the others.
        [[nodiscard]] Result<void> give_back(const std::string& service, std::uint64_t cookie, const Peer& peer);

        // In the order in which they are tried. A service without registrations has none.
        [[nodiscard]] std::span<const Registration> registrations(const std::string& service) const;
        [[nodiscard]] std::vector<std::string> services() const;  // those with registrations
        [[nodiscard]] std::size_t size() const;                   // registrations of all services
        [[nodiscard]] Distribution distribution(const std::string& service) const;

        [[nodiscard]] ServiceCounters counters(const std::string& service) const;
        [[nodiscard]] BindingCounters counters(const Service& service, const Binding& binding,
                                               const ClientFilter& client) const;

private:
        struct ServiceState {
                ServiceId id = 0;
                Distribution distribution;
                std::vector<Registration> registrations;  // in_order()
        };

        using BoundTo = std::pair<Protocol, Endpoint>;
        struct Bound {
                ServiceId service = 0;
                std::uint64_t cookie = 0;
                bool operator==(const Bound&) const = default;
        };
        // One that is not noted for want of memory is not warned of.
        void note_bound(ServiceId service, const Registration& registration) noexcept;
        void forget_bound(ServiceId service, const Registration& registration);

        [[nodiscard]] bool is_dead(const std::string& service, const Registration& registration) const;
        // Takes away what is gone of one service, and adds that to `departures`: all of it, or nothing where this fails
        // or throws.
        [[nodiscard]] Result<void> remove_of(const std::string& service, ServiceState& state, const Gone& gone,
                                             std::vector<Departure>& departures);
        // The same, and the next service has its turn whatever comes of it.
        void remove_of(const std::string& service, ServiceState& state, const Gone& gone, Removal& removal) noexcept;
        [[nodiscard]] bool sweep_some(Sweep& sweep, std::chrono::steady_clock::time_point until, Removal& removal);
        using States = std::map<std::string, ServiceState, std::less<>>;
        // A service as the policy has it, or away with it.
        void follow_policy(States::iterator state, const Policy& policy, Removal& removal) noexcept;
        // A service that no rule names any more, with all that it has: or nothing, where this throws.
        void remove_service(const std::string& service, ServiceState& state, std::vector<Departure>& departures);
        // Makes `kept` the registrations of the service, distributed like that: targets first, then the slots that no
        // target names any more. Nothing has changed where it fails or throws.
        [[nodiscard]] Result<void> replace_registrations(ServiceState& state, std::vector<Registration> kept,
                                                         Distribution distribution);
        [[nodiscard]] Result<void> set_distribution(ServiceState& state, Distribution distribution);
        [[nodiscard]] Result<void> rewrite(const std::string& service, std::uint64_t cookie,
                                           const std::function<void(Registration&)>& change);
        Dataplane& dataplane_;
        States services_;                                     // every service of the policy, or of one to come
        std::multimap<BoundTo, Bound> bound_;                 // every registration
        std::optional<std::vector<std::uint32_t>> counters_;  // of the policy in force, once it came from here
        std::int64_t last_since_usec_ = 0;
};

// The rules of a policy; `id_of` gives each service its number in the kernel. One for each source and interface of a
// binding; none for an interface that is not among `interfaces` or is 0 there. Pure.
[[nodiscard]] std::vector<Rule> rules_of(const Policy& policy,
                                         const std::function<ServiceId(const std::string& service)>& id_of,
                                         const Interfaces& interfaces, std::span<const std::uint32_t> counters);

// The bindings that are counted one by one, in the order in which rules_of() takes their counters. Pure.
[[nodiscard]] std::vector<std::uint64_t> counted_bindings(const Policy& policy);

// Whether one is tried before another: those whose service lives before those that are held, then the newer. Clients do
// not queue in a held socket while somebody could serve them. Pure, as all below.
[[nodiscard]] bool is_before(const Registration& one, const Registration& other);

// The slots of a service, in the order in which the dispatch program tries them where they do not share.
[[nodiscard]] Targets targets_of(std::span<const Registration> in_order, Distribution distribution);

// The first that can serve a protocol and family; null: none.
[[nodiscard]] const Registration* first_choice(std::span<const Registration> in_order, Protocol protocol,
                                               Family family);

// Those that come after the cursor.
[[nodiscard]] std::span<const Registration> behind(const Cursor& cursor, std::span<const Registration> in_order);

// Whether it serves: as the first choice of some protocol and family or, where they share, as one of all. The others
// are draining.
[[nodiscard]] bool is_live(std::span<const Registration> in_order, Distribution distribution, const Registration& one);

// The same for who asks about many of a service: who is first is looked up once, for of thousands that are displaced
// each may stand behind as many of another protocol.
class Serving {
public:
        Serving(std::span<const Registration> in_order, Distribution distribution);

        [[nodiscard]] bool is_live(const Registration& one) const;

private:
        bool share_;
        Slot first_[2][2] = {};  // [protocol][family]; 0: nobody
};

// Whether a hand-over ends a hold: what the held socket served is served by the new ones, and they are of the
// same owner (the next instance) or displace it anyway.
[[nodiscard]] bool is_succeeded(const Registration& held, const Peer& peer, std::span<const Offer> offers,
                                Distribution distribution);

// Who may take a registration away or follow it: the unit that made it, or outside units its uid.
[[nodiscard]] bool is_owner(const Peer& peer, const Registration& registration);

}  // namespace sockbroker
