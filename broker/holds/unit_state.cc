// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/unit_state.h"

namespace sockbroker {

Presence presence_of(const UnitState& state, std::int64_t registered_usec) {
        if (state.active == "inactive") {
                // On its way to a restart a unit may be inactive for a moment (from systemd 254 on visibly so). A job
                // of an inactive unit can only be one that starts it.
                return state.has_job || state.sub.ends_with("before-auto-restart") ? Presence::kGone
                                                                                   : Presence::kStopped;
        }
        if (state.active == "failed" || state.active == "deactivating") {
                return Presence::kGone;
        }
        // Active, or about to be; but is it the same activation? "auto-restart", the wait for the next one, counts as
        // activating and begins a new one; with RestartMode=direct the same one goes on, but was active before.
        const bool other = state.began_usec > registered_usec || state.ended_usec > registered_usec ||
                           state.sub.starts_with("auto-restart");
        return other ? Presence::kGone : Presence::kThere;
}

}  // namespace sockbroker
