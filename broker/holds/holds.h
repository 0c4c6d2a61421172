// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sockets that are to outlive their services (HoldSec=): a holder of the service has one descriptor of each, PID 1
// another in its store, so that the broker's own end loses none; here there is none. Watches who registered them: the
// unit by what PID 1 says of it, and the process by its pidfd; and whether what comes is read, since a listener that
// its owner has closed is open in the holder.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/turns.h"
#include "broker/hands/crew.h"
#include "broker/holds/fd_store.h"
#include "broker/holds/in_holder.h"
#include "broker/holds/store_names.h"
#include "broker/holds/unit_watch.h"
#include "broker/holds/unread.h"
#include "broker/peer/peer.h"

namespace sockbroker {

// A socket may be registered for more than one service.
struct HoldKey {
        std::string service;
        std::uint64_t cookie = 0;

        auto operator<=>(const HoldKey&) const = default;
};

struct Held {
        HoldKey key;
        Protocol protocol = Protocol::kTcp;
        Endpoint bound;
        std::string unit;                  // of the registrant, empty: none
        std::int64_t registered_usec = 0;  // CLOCK_MONOTONIC, as all times here
        std::int64_t gone_usec = 0;        // when the registrant went; 0: it has not
        std::int64_t hold_usec = 0;
        // A stop on purpose until then counts as a crash, and the socket waits so long whatever ended it; 0: HoldSec=
        // alone.
        std::int64_t until_usec = 0;
        bool alone = false;  // the process that registered it went, its unit goes on
};

enum class HoldEnd : std::uint8_t {
        kExpired,    // HoldSec= ran out
        kUnread,     // nobody went, and yet what came was not read for HoldSec=
        kSpanOver,   // what set_until() gave ran out
        kStopped,    // its unit was stopped on purpose
        kActivated,  // a .socket unit has handed it over: PID 1 keeps it
};

class Holds {
public:
        // They do not call back.
        struct Hooks {
                // The registrant went: the clock starts. False: nobody would wait for the next instance, it is given
                // up.
                std::function<bool(const Held&)> gone;
                // It did not, after all: nobody could be asked about its unit before, or others read the socket.
                std::function<void(const Held&)> there;
                // The descriptor is given up; with the kernel's last close the socket is gone.
                std::function<void(const Held&, HoldEnd)> ended;
        };
        // `has_store`: PID 1 keeps descriptors for this process.
        Holds(sd_event* event, hands::Crew& crew, bool has_store, Hooks hooks);
        ~Holds();
        Holds(const Holds&) = delete;
        Holds& operator=(const Holds&) = delete;

        // The holder of the service has it, or is about to adopt it; `process` is the registrant. `stored`: the name
        // under which PID 1 has the socket already. False: it is kept, but not by PID 1, and so it ends with this
        // process.
        [[nodiscard]] bool keep(Held held, Process process, const std::string& stored = {});
        // For a message whose sockets the holder of the service is to take.
        [[nodiscard]] std::shared_ptr<InHolder> in_holder(std::string service) const;
        [[nodiscard]] bool is_in_holder(const HoldKey& key) const { return crew_.keeps(key.service, key.cookie); }
        // At most kMaxMessageFds, which keep() has or is about to have. `lost` is called with what the holder does not
        // keep.
        void adopt(const std::string& service, std::vector<std::uint64_t> cookies, std::vector<OwnedFd> sockets,
                   hands::Charge charge, std::function<void(const std::vector<std::uint64_t>&)> lost);
        // PID 1 has no descriptor of that name any more.
        void forgotten(const std::string& name) { names_.release(name); }
        // Of another registrant from now on.
        void pass_on(const HoldKey& key, const Peer& peer, std::int64_t registered_usec, Process process);
        // The registrant did not come to have it, and counts as gone.
        void take_back(const HoldKey& key);
        // HoldSec= has changed.
        void set_span(const HoldKey& key, std::int64_t hold_usec);
        // See Held::until_usec.
        void set_until(const HoldKey& key, std::int64_t until_usec);
        // Gives it up without a word.
        void release(const HoldKey& key);
        // What PID 1 keeps under this name is of no use. PID 1 forgets it, and then a holder closes it.
        void forget_stored(const std::string& name, OwnedFd fd);

        [[nodiscard]] const Held* find(const HoldKey& key) const;
        [[nodiscard]] std::vector<HoldKey> keys_of(const std::string& service) const;
        [[nodiscard]] std::size_t size() const { return kept_.size(); }
        [[nodiscard]] bool has_store() const { return has_store_; }
        [[nodiscard]] std::size_t store_capacity() const { return names_.most(); }
        [[nodiscard]] std::size_t unstored() const;  // how many PID 1 does not have
        [[nodiscard]] unsigned manager_version() const { return units_.version(); }

        // Calls `then` when it is certain of each socket of the service whether its registrant is there, and whether
        // the holder keeps it: after a start somebody may ask before the holder has what PID 1 had.
        void settle(const std::string& service, std::function<void()> then);

private:
        struct Kept {
                Held held;
                std::int64_t ends_usec = 0;  // as in ends_; 0: it is not there
                bool undelivered = false;    // its registrant asked for it and did not get it
                bool others_read = false;    // so the end of the process says nothing any more
                bool own = false;            // of the service: no .socket unit of it listens there
                Unread unread;
                Process process;
                OwnedSource process_watch;  // ends before what it watches

                [[nodiscard]] bool process_ended() const;
        };
        // PID 1 keeps a socket once, however many services it is registered for.
        struct Stored {
                std::size_t services = 0;  // how many of kept_ are of this cookie
                std::string name;          // empty: PID 1 does not have it
        };
        void store(Stored& stored, const HoldKey& key, const std::string& name);
        void look_at(const HoldKey& key, const std::function<void()>& then = {});
        void judge(const HoldKey& key, const UnitState* state);
        // Whether one of these .socket units has handed it over; if not, it is looked at again.
        void find_origin(const HoldKey& key, const std::vector<std::string>& sockets,
                         const std::function<void()>& then);
        // Orders to a holder that are not answered, and what goes on then.
        struct Adopting {
                std::size_t orders = 0;
                std::vector<std::shared_ptr<void>> waiting;
        };
        struct Origin;
        void origin_known(const HoldKey& key, const Origin& origin);
        void set_gone(Kept& kept, std::int64_t gone_usec);
        void back(Kept& kept);
        void set_clock(Kept& kept, std::int64_t gone_usec, std::int64_t hold_usec);
        void ask_again_later();
        void end(const HoldKey& key, HoldEnd why);
        void watch_process(Kept& kept);
        void set_timer();
        void expire();
        void sample_queues();
        void sample(const std::string& service, const std::vector<std::uint64_t>& cookies);
        void sampled(const std::string& service, const std::vector<hands::Found>& samples);
        void sample_in(std::int64_t usec);
        void look_at_each(const std::function<bool(const Held&)>& concerned);

        sd_event* event_;
        hands::Crew& crew_;
        const bool has_store_;
        Hooks hooks_;
        StoreNames names_{fd_store_capacity()};
        std::shared_ptr<const InHolder::GiveUp> give_up_;
        std::uint64_t last_stranger_ = UINT64_MAX;  // a number that is no socket's
        OwnedSource timer_;
        OwnedSource again_;
        OwnedSource sampling_;
        std::int64_t sample_every_usec_ = 0;                            // 0: nothing is kept
        std::map<std::string, std::weak_ptr<void>> being_sampled_;      // by service: while an order is not answered
        std::map<std::string, std::weak_ptr<Adopting>> being_adopted_;  // by service
        std::shared_ptr<bool> open_ = std::make_shared<bool>(true);     // false: nobody is answered any more
        std::map<HoldKey, Kept> kept_;
        std::map<std::uint64_t, Stored> stored_;                          // by cookie
        std::set<std::pair<std::int64_t, HoldKey>> ends_;                 // when holds run out
        std::vector<std::pair<HoldKey, std::function<void()>>> waiting_;  // for the bus
        UnitWatch units_;
};

}  // namespace sockbroker
