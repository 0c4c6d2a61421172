// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a start finds on record of a trial.
#pragma once

#include <cstdint>
#include <string>

#include "broker/daemon/reloads.h"

namespace sockbroker {

struct Reloads::TrialAtStart {
        enum class Kind : std::uint8_t {
                kNone,     // or none any more
                kOnTrial,  // the policy of the folders
                kOver,     // it was, and was not kept
                kUnknown,  // what is on record cannot be used
        };
        Kind kind = Kind::kNone;
        Trial trial;
        std::string why;  // for the journal; empty: nothing to say
};

}  // namespace sockbroker
