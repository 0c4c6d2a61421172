// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The kernel's half of the broker: the sk_lookup program, its link, and the maps, pinned in a directory of a
// bpffs. While no broker runs, dispatch goes on with what is pinned. This is the one place that makes bpf() calls.
// Needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN in load() and no capability otherwise.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/result.h"
#include "broker/dataplane/parking.h"
#include "broker/dataplane/rules.h"

namespace sockbroker {

using Slot = std::uint32_t;  // an index of the sockmap, from 1; 0: none

struct Capacity {
        std::uint32_t bindings = 65536;
        std::uint32_t services = 1024;
        std::uint32_t sockets = 4096;
        std::uint32_t accounted = 4096;  // bindings that are counted one by one

        bool operator==(const Capacity&) const = default;
};

// What is kept in the kernel about a slot, so that a new broker knows whose socket it is. Written before the socket is
// put there.
struct Registrant {
        ServiceId service = 0;
        std::uint64_t cookie = 0;
        std::int64_t since_usec = 0;
        pid_t pid = 0;
        uid_t uid = 0;
        gid_t gid = 0;
        Protocol protocol = Protocol::kTcp;
        std::uint8_t family = 0;  // SocketFamily
        bool serves_ipv4 = false;
        bool serves_ipv6 = false;
        Endpoint bound;
        std::int64_t registered_usec = 0;  // CLOCK_MONOTONIC, microseconds
        std::int64_t gone_usec = 0;        // CLOCK_MONOTONIC, since when its service is gone; 0: it is not
        std::int64_t hold_until_usec = 0;  // CLOCK_MONOTONIC, a stop on purpose until then counts as a crash
        std::string unit;                  // at most 255 bytes
        std::uint64_t user_name = 0;       // hashes of the names that admitted it; 0: a number, or none
        std::uint64_t group_name = 0;
};

inline constexpr std::size_t kReserveDepth = 4;
inline constexpr std::size_t kMaxShared = 256;

// Where the packets of a service go.
struct Targets {
        // By protocol and family. Newest first, at most kReserveDepth: they are tried in this order, so the others are
        // the reserve. With `share` at most kMaxShared, over which flows are spread by a hash of their addresses and
        // ports.
        std::array<std::array<std::vector<Slot>, 2>, 2> slots;
        bool share = false;
        bool reuse_port = false;  // within a socket's SO_REUSEPORT group the kernel chooses
        bool stay = false;        // a flow of UDP goes on to the socket that has served it
        bool reply = false;       // the address that a client of UDP asked is noted, for the answer to leave from it

        bool operator==(const Targets&) const = default;
};

struct ServiceCounters {
        std::uint64_t lookups = 0;         // a rule of the service decided
        std::uint64_t assigned = 0;        // a socket took the packet
        std::uint64_t no_socket = 0;       // none was live: WhenAbsent= decided
        std::uint64_t error_protocol = 0;  // bpf_sk_assign: EPROTOTYPE
        std::uint64_t error_family = 0;    // EAFNOSUPPORT
        std::uint64_t error_state = 0;     // ESOCKTNOSUPPORT: shut down or connected by its owner
        std::uint64_t error_exists = 0;    // EEXIST
        std::uint64_t error_other = 0;
        std::uint64_t crossed = 0;  // with Targets::reply: a client asked another address before it had its answer
};

struct BindingCounters {
        std::uint64_t lookups = 0;    // the binding decided
        std::uint64_t no_socket = 0;  // and its service had no socket
};

// A packet at the hook, as far as dispatch looks at it.
struct LookUp {
        Protocol protocol = Protocol::kTcp;
        Endpoint local;             // the address and port that the client asks
        Endpoint remote;            // the client's, of the same family
        std::uint32_t ifindex = 0;  // where it comes in
        bool no_client = false;     // nothing is asked of a client: rules for some of them alone are left out
};

// What the kernel's rules would do with one.
struct Explained {
        // A rule that matched, in the order in which they are tried.
        struct Step {
                std::size_t at = 0;  // its place in that order; far below the first one some are left out
                ServiceId service = 0;
                bool delivered = false;  // else the service had no socket that took it; of those that did not, why:
                bool wrong_protocol = false;
                bool wrong_family = false;
                bool wrong_state = false;  // shut down or connected by its owner
                bool other_error = false;
                bool shared = false;          // chosen among several by the client's address and port
                bool stayed = false;          // the one that has served this flow of UDP before
                bool kernel_chooses = false;  // the cookie is that of one of a SO_REUSEPORT group
        };
        bool refused = false;      // neither a socket nor the ordinary lookup
        std::uint64_t cookie = 0;  // of the socket that takes it; 0: none
        std::vector<Step> steps;   // the last decides

        // Rules that matched, also those that `steps` leaves out.
        [[nodiscard]] std::size_t matched() const { return steps.empty() ? 0 : steps.back().at + 1; }
};

class UnitPrograms;

class Dataplane {
public:
        struct Loaded {
                std::uint32_t earlier_layout = 0;  // whose state was taken along just now; 0: none was
                std::string not_grown;             // why the maps were not made larger, although that was asked
                std::string no_filter;             // why `notify` has no NotifyFilter
        };
        // Takes up what is pinned in `pin_dir`, or makes it anew. The directory must exist on a bpffs, and no broker
        // may serve by it. Loads the programs of this build in either case, puts the one that dispatches into the
        // pinned link, and pins the others. Maps that are too small for `capacity` are replaced by larger ones, in one
        // step and with all that they hold.
        [[nodiscard]] static Result<Loaded> load(const std::string& pin_dir, const Capacity& capacity);
        // What load() of the same build has pinned, in this process or another one.
        [[nodiscard]] static Result<std::unique_ptr<Dataplane>> adopt(const std::string& pin_dir);
        // load(), then adopt().
        [[nodiscard]] static Result<std::unique_ptr<Dataplane>> open(const std::string& pin_dir,
                                                                     const Capacity& capacity);
        // Ends dispatch: unpins everything in the directory. Established connections go on.
        [[nodiscard]] static Result<void> unload(const std::string& pin_dir);
        // The same from within a broker that runs, with what it has open.
        [[nodiscard]] Result<void> unload();
        // Version of the pinned state that this build reads and writes.
        [[nodiscard]] static std::uint32_t layout_version();

        ~Dataplane();
        Dataplane(const Dataplane&) = delete;
        Dataplane& operator=(const Dataplane&) = delete;

        [[nodiscard]] bool taken_up() const;  // state of an earlier broker was found
        // False: somebody has detached the dispatch program, so no lookup comes to it.
        [[nodiscard]] bool is_attached() const;
        // Inode of the network namespace to whose lookups it is attached; 0: to none. None: the kernel does not say.
        [[nodiscard]] std::optional<std::uint64_t> netns() const;
        // False: somebody has removed the pin by which dispatch outlives this process.
        [[nodiscard]] bool is_pinned() const;
        [[nodiscard]] const std::string& pin_dir() const;
        // As the maps have it: never less than open() was asked, unless not_grown() says why.
        [[nodiscard]] const Capacity& capacity() const;
        [[nodiscard]] const std::string& not_grown() const;
        // State of this layout was found, and taken along but for the rules: what dispatched then goes on until
        // set_rules(). 0: none.
        [[nodiscard]] std::uint32_t earlier_layout() const;
        // Rules of an earlier layout are in force until there are some of this.
        [[nodiscard]] bool earlier_rules() const;

        // Replaces all rules in one step: a packet sees the old ones or the new. Waits for a grace period. On failure
        // the old ones stay.
        [[nodiscard]] Result<void> set_rules(const std::vector<Rule>& rules);

        // For each of these bindings, told apart by hashes that the caller makes, the counter that a rule may name: the
        // one that it has already, with what it counted, or a fresh one. ENOSPC: more than capacity().accounted.
        [[nodiscard]] Result<std::vector<std::uint32_t>> assign_counters(std::span<const std::uint64_t> bindings);
        // Gives back all other counters. No rule in force may name one of them.
        void keep_counters(std::span<const std::uint32_t> counters);
        [[nodiscard]] BindingCounters binding_counters(std::uint64_t binding) const;

        // Names of services by id, as kept in the kernel.
        [[nodiscard]] const std::vector<std::string>& service_names() const;  // index: id; empty: free
        [[nodiscard]] Result<ServiceId> add_service(std::string_view name);   // the id it has, or a free one
        void remove_service(ServiceId id);  // no rule may name it any more; its targets and counters are cleared

        // Puts a duplicate of the socket into a free slot that no target names. EBUSY: all slots taken.
        [[nodiscard]] Result<Slot> install(int fd, const Registrant& registrant);
        // A map of this many entries, made anew at each load(): who has only its descriptor can offer sockets, and
        // cannot touch one that serves.
        static constexpr std::uint32_t kStagingEntries = 40'000;
        [[nodiscard]] int staging_fd() const;
        // Copies the socket of this staging entry into one of kParkedEntries entries behind them, which is not given to
        // another for as long as its place is kept. EBUSY: all are in use. Other errors as of install_staged().
        static constexpr std::uint32_t kParkedEntries = 16'384;
        [[nodiscard]] Result<Parking::Place> park(std::uint32_t entry);
        // The same as install() with the socket that stands in this entry, if it is the one of registrant.cookie.
        // ENOENT: it is not, or its last descriptor was closed meanwhile. No descriptor and no lock of it is needed.
        [[nodiscard]] Result<Slot> install_staged(std::uint32_t entry, const Registrant& registrant);
        // Replaces what is on record about the socket in the slot.
        [[nodiscard]] Result<void> set_registrant(Slot slot, const Registrant& registrant);
        // No more sockets than that at a time, where the maps have room for more: they never get smaller.
        void limit_sockets(std::uint32_t most);
        [[nodiscard]] std::uint32_t free_slots() const;
        // Flows name their socket by a slot up to this one, and those are given out first.
        static constexpr Slot kLastFlowSlot = 0xfffe;
        // Makes these the service's sockets, all in one step.
        [[nodiscard]] Result<void> set_targets(ServiceId id, const Targets& targets);
        [[nodiscard]] Targets targets(ServiceId id) const;
        // Takes the socket out. No target may name the slot. It is used again only after a grace period.
        void remove(Slot slot);
        // Cookie of the socket that is in the slot; none: empty, its last descriptor was closed.
        [[nodiscard]] std::optional<std::uint64_t> cookie(Slot slot) const;
        // Whether lookups of this protocol and family may choose the socket in the slot. One that its owner has shut
        // down or connected stays in its slot and keeps its cookie, but cannot be chosen.
        [[nodiscard]] bool takes_lookups(Slot slot, Protocol protocol, Family family) const;
        // Every slot with a registrant on record, live or not: to rebuild the registry after a start.
        [[nodiscard]] std::vector<std::pair<Slot, Registrant>> registrants() const;

        [[nodiscard]] ServiceCounters counters(ServiceId id) const;

        // By slot: flows of UDP that would go on to its socket, and have come more than once. Takes up to a
        // millisecond.
        [[nodiscard]] std::vector<std::uint32_t> flows() const;
        // Removes idle flows. Must run more often than the time stamps of the table wrap around, which takes 73
        // minutes.
        void sweep_flows();

        // The program that a client may attach to its listeners (SO_ATTACH_REUSEPORT_EBPF). It reads nothing and
        // decides nothing: whoever has its descriptor has no other power by it.
        [[nodiscard]] int migration_program() const;

        // Programs for cgroups of units, with which answers over UDP leave from the asked address.
        [[nodiscard]] UnitPrograms& unit_programs();

        // Runs a second build of the dispatch program over the same maps, without effect on counters and sockets. One
        // at a time; takes microseconds.
        [[nodiscard]] Result<Explained> explain(const LookUp& look_up) const;

private:
        struct State;
        template <class Put>
        [[nodiscard]] Result<Slot> install_by(const Registrant& registrant, Put put);
        explicit Dataplane(std::unique_ptr<State> state);
        std::unique_ptr<State> state_;
};

}  // namespace sockbroker
