// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a request asks for, and the names of the verbs of the control socket. A new verb is a line of the enum here and
// one of the table in verb.cc. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sockbroker {

// Which of the two sockets the message came from: notify ignores what sd_notify(3) would ignore, control
// has verbs and treats an unknown key as malformed.
enum class Channel : std::uint8_t { kNotify, kControl };

enum class Verb : std::uint8_t {
        kNothing,     // notify only: a message without a key for the broker (READY=1, an empty datagram)
        kStore,       // FDSTORE=1
        kRemove,      // FDSTOREREMOVE=1
        kBarrier,     // BARRIER=1, alone, with exactly one fd
        kRetrieve,    // FDRETRIEVE=1, control only
        kStatus,      // VERB=status; this and all below: control only, no fds
        kList,        // VERB=list
        kBindings,    // VERB=bindings
        kCounted,     // VERB=counted: bindings that are counted one by one
        kReload,      // VERB=reload; TIMEOUT_USEC= may be there: back again unless VERB=keep comes in time
        kUnregister,  // VERB=unregister, FDNAME= required: like FDSTOREREMOVE=1, and root may for any service
        kHold,        // VERB=hold, FDNAME= and TIMEOUT_USEC= required
        kDrain,       // VERB=drain, FDNAME= required
        kUndrain,     // VERB=undrain, the same
        kUnload,      // VERB=unload
        kVersion,     // VERB=version
        kMatch,       // VERB=match, PROTOCOL=, ADDRESS= and PORT= required
        kDiff,        // VERB=diff
        kKeep,        // VERB=keep
        kMonitor,     // VERB=monitor
        kExplain,     // VERB=explain, the same, FROM= and INTERFACE= may be there
        kPrepare,     // VERB=prepare, FDNAME= may be there
};

// The verb of VERB=<name>, nullopt for a name that is none. The keys that have no VERB= (FDSTORE=1 and its like) have
// no name.
[[nodiscard]] std::optional<Verb> find_verb(std::string_view name);
[[nodiscard]] std::string_view verb_name(Verb verb);  // "status"; empty where the request has no VERB=
[[nodiscard]] std::string verb_names();               // all of them, with blanks between

}  // namespace sockbroker
