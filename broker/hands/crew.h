// SPDX-License-Identifier: LGPL-2.1-or-later
//
// All that touches strangers' descriptors for the core, which never has one itself: hands that take messages, hands
// that close, holders, and the door. Nothing here waits for any of them. A hand that has not answered in time is left
// behind: its job is answered, it is killed (and dies when it wakes), its sender is charged, another hand takes its
// place.
//
//      auto zygote = Zygote::start(netns_cookie);          // the first thing of the process
//      ...                                                 // sockets, maps
//      auto crew = Crew::start(event, **zygote, {.control = ..., .notify = ..., .staging = ...},
//                              {.connected = [&](Connection one) { ... prepare, watch, peek() ... }});
//      // a message with descriptors, whose sender may register
//      if (!crew->take({.connection = fd, .id = id, .charge = charge, .probe = true}, [](const Taken& taken) {
//                  if (taken.outcome == Outcome::kDone) { ... copy from slots taken.staging + i, switch, answer ok ...
//                  } else { ... answer busy ... }
//          })) { ... answer busy: its sender keeps hands busy already ... }
//      crew->close(id, std::move(fd), charge);
//
// Callbacks come from the event loop, never from within a call of this class. Where memory does not suffice calls
// throw, and then nothing has happened; what a callback throws ends there. Between take() and its callback nothing may
// be received from, or peeked at on, that connection.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/hands/door.h"
#include "broker/hands/ledger.h"
#include "broker/hands/shares.h"
#include "broker/hands/wire.h"
#include "broker/hands/zygote.h"

namespace sockbroker::hands {

enum class Outcome : std::uint8_t {
        kDone,
        kLate,    // left behind: the message is consumed, or is about to be
        kLost,    // the hand died; whether the message is consumed is not known
        kBusy,    // no hand was free for a second: nothing has happened
        kBarred,  // hands left behind are busy with this sender: the message is put aside, and nobody looks into it
};

struct Taken {
        Outcome outcome = Outcome::kDone;
        int errnum = 0;          // EAGAIN: there was no message; EMFILE: the holder is full
        bool truncated = false;  // more than fits: all is closed
        std::uint32_t staging =
                0;                 // slot of found[0]; found[i] in the i-th after it. Theirs until the callback returns
        std::vector<Found> found;  // where it was asked to probe; one for each descriptor
        std::size_t count = 0;     // descriptors that came
};

class Crew {
public:
        static constexpr std::int64_t kPatienceUsec = 200'000;
        static constexpr std::int64_t kPatienceIfStarvedUsec = 2'000'000;  // for one that waits for a processor
        static constexpr std::int64_t kMaxWaitUsec = 1'000'000;            // for a free hand
        static constexpr std::size_t kMaxHolders = 64;                     // none is shared
        // Slots of the staging map for one process; `staging_slots` has room for all that may live at once.
        static constexpr std::uint32_t kStagingOfOne = kMaxMessageFds;
        static constexpr std::uint32_t kStagingSlots =
                kStagingOfOne * (kMaxHolders + Ledger::kMaxInAll + Ledger::kReserve + 16);

        struct Options {
                int control = -1;  // all borrowed, and kept open by their owner; -1: none
                int labels = -1;   // as control, for peers that speak as label.h says; only beside it
                int notify = -1;
                int staging = -1;  // a sockmap with values of eight bytes
                std::uint32_t staging_slots = kStagingSlots;
                int manager = -1;    // a datagram socket connected to $NOTIFY_SOCKET
                unsigned hands = 0;  // of each kind; 0: by processors, two to four
        };
        struct Hooks {
                std::function<void(Connection)> connected;
                std::function<void(const RefusedReport&)> refused;  // connections, by the door
                // A holder was left behind or died: the sockets of this key are with PID 1 only.
                std::function<void(const std::string& key, const std::vector<std::uint64_t>& cookies)> lost;
                std::function<void(const std::string& name)> forgotten;  // by PID 1: release(), forget()
                // Of the user who has sent what has just come from `notify`; empty: it is not known.
                std::function<std::string(uid_t uid)> group_of;
                // Whether messages of this one are to come into the queue of `notify`.
                std::function<void(const Party& party, bool heard)> heard;
                std::function<void()> died;  // the zygote: this process must end, and be started again
        };

        // Returns before the first of them is there: what is asked for meanwhile waits. `zygote` outlives it.
        [[nodiscard]] static Result<std::unique_ptr<Crew>> start(sd_event* event, Zygote& zygote,
                                                                 const Options& options, Hooks hooks);
        ~Crew();
        Crew(const Crew&) = delete;
        Crew& operator=(const Crew&) = delete;

        // Hands left behind are still busy with things of this sender, or of his like: it gets none.
        [[nodiscard]] bool bars(const Charge& charge) const;
        [[nodiscard]] std::size_t left_behind() const;

        struct Take {
                int connection = -1;   // borrowed until the callback, or close(id); -1: from the notify socket
                std::uint64_t id = 0;  // of the connection
                Charge charge;
                bool probe = false;  // offer what can be brokered; else close everything
                std::string holder;  // and keep it there, if not empty
                bool others_wait =
                        false;  // behind it, in a queue of all: whoever is barred has it taken, and put aside
        };
        using Done = std::function<void(const Taken&)>;
        // Consumes one message. `taken` (for the notify socket): the next one may be peeked at; always before `done`,
        // unless nothing has happened. False: barred, and nothing will happen.
        [[nodiscard]] bool take(Take what, Done done, std::function<void()> taken = {});

        // Ends a connection. A take() that still waits is forgotten without a callback.
        void close(std::uint64_t id, OwnedFd connection, Charge charge) noexcept;

        // --- sockets on hold, by service

        // At most kMaxMessageFds, of which somebody else has duplicates (PID 1). Nobody looks at them: `cookies` are
        // theirs, or any other numbers that are no socket's. `charge`: whose they are.
        void adopt(const std::string& holder, std::vector<std::uint64_t> cookies, std::vector<OwnedFd> sockets,
                   Charge charge, Done done);
        // First PID 1 forgets what it has under that name, if not empty; then the holder closes its own, unless it was
        // given the same socket again meanwhile.
        void release(const std::string& holder, std::uint64_t cookie, std::string name = {}) noexcept;
        // At most kMaxMessageFds, which stay kept. The result is an errno: 0: sent; EBUSY, ENOENT: nothing has
        // happened; ETIMEDOUT: that is not known.
        void send(const std::string& holder, std::vector<std::uint64_t> cookies, int connection, std::uint64_t id,
                  std::string record, std::function<void(int errnum)> done);
        // How much waits in at most kMaxMessageFds of them: Found::waiting.
        void sample(const std::string& holder, std::vector<std::uint64_t> cookies, Done done);
        void store(const std::string& holder, std::uint64_t cookie, const std::string& name);
        [[nodiscard]] std::vector<std::uint64_t> kept(const std::string& holder) const;
        [[nodiscard]] bool keeps(const std::string& holder, std::uint64_t cookie) const;
        // PID 1 was told all that it is to be told, as far as it listens.
        [[nodiscard]] bool holders_idle() const;

private:
        class State;
        explicit Crew(std::unique_ptr<State> state);
        std::unique_ptr<State> state_;
};

}  // namespace sockbroker::hands
