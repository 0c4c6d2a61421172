// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Journal entries: one per verdict, registration, removal, hand-over, expiry, reload and refusal, with a
// MESSAGE_ID and the SOCKBROKER_* fields. A thread of its own writes them from a bounded queue, so that a hanging
// journal never blocks the broker; what did not fit is counted and reported.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace sockbroker {

enum class Action : std::uint8_t {
        kStart,         // the broker serves; how much it took up
        kStop,          // the broker ends, dispatch goes on
        kRegister,      // a socket was registered
        kHandover,      // a registration displaced another; names both owners
        kRefuse,        // a request was refused
        kUnregister,    // a registration was removed on request
        kGone,          // a socket's last descriptor was closed, or its owner shut it down
        kRevoke,        // a reload took a registration away
        kReload,        // a policy was taken
        kReloadFailed,  // a policy was refused, the running one stays
        kDiagnostic,    // one error or warning of a policy
        kUnload,        // dispatch was taken away
        kHold,          // a service went, its socket is held for the next instance
        kRetrieve,      // the next instance has it back
        kExpire,        // it is not held any more: HoldSec= ran out, or the service was stopped
        kWarn,          // a registration was taken and is probably not as it was meant
        kLost,          // journal entries were lost
        kKeep,          // the next stop on purpose of a service is to count as a crash
        kAnnounce,      // the prefixes of a service stand where routing daemons see them
        kWithdraw,      // they do not any more
        kDrain,         // a service is to be withdrawn while it serves, or that ends
        kTurnAway,      // connections of a user were refused, unread
};
inline constexpr std::size_t kActions = static_cast<std::size_t>(Action::kTurnAway) + 1;

struct Entry {
        Action action = Action::kStart;
        int priority = 6;     // syslog level
        std::string message;  // MESSAGE=
        // Fields, left out where empty or 0:
        std::string service;
        std::string result;  // ResultCode as text
        std::string rule;    // file:line
        std::uint64_t cookie = 0;
        std::string protocol;
        std::string bound;
        std::string unit;
        bool has_peer = false;  // whether uid and pid mean anything
        uid_t uid = 0;
        pid_t pid = 0;  // OBJECT_PID=
        // Hand-over: the one displaced.
        std::string old_unit;
        std::uint64_t old_cookie = 0;
        uid_t old_uid = 0;
        pid_t old_pid = 0;
};

[[nodiscard]] std::string_view action_name(Action action);  // SOCKBROKER_ACTION=: "register", "handover", "refuse" ...
[[nodiscard]] std::string_view message_id(Action action);   // 32 hex digits

class Audit {
public:
        // Starts the writer, a thread that blocks every signal. A broker drops its capabilities before, for they are a
        // thread's, and its uid (glibc would change that of every thread, and this one could not follow).
        Audit();
        ~Audit();  // writes what is queued, but waits at most two seconds
        Audit(const Audit&) = delete;
        Audit& operator=(const Audit&) = delete;

        // Never blocks: what does not fit into the queue is dropped and counted. Writes to standard error as well when
        // that is not the journal.
        void write(Entry entry) noexcept;
        // One of no service and no peer.
        void note(int priority, std::string message) noexcept {
                write({.action = Action::kDiagnostic, .priority = priority, .message = std::move(message)});
        }
        // Sees each entry that is written from now on, before the journal has it, in the thread that writes it.
        void tap(std::function<void(const Entry&)> see) { tap_ = std::move(see); }
        // Entries that did not reach the journal since the start, whether already reported there or not. A machine
        // without a journal loses none.
        [[nodiscard]] std::uint64_t lost() const;

private:
        struct State;
        std::shared_ptr<State> state_;
        std::function<void(const Entry&)> tap_;
};

}  // namespace sockbroker
