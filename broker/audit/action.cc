// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one table of what the journal is told: action, its name, its MESSAGE_ID. Ids are for ever, since people
// match on them: a new action gets a new id (`systemd-id128 new`), a retired one is never given away again. Each
// has its text in units/sockbroker.catalog.
#include <array>
#include <cstddef>

#include "broker/audit/audit.h"

namespace sockbroker {

namespace {

struct Row {
        Action action;
        std::string_view name;
        std::string_view id;
};

constexpr std::array kRows = {
        Row{Action::kStart, "start", "be3e4663f78f4038b13a17637bcd140b"},
        Row{Action::kStop, "stop", "052f827151364b28913865e553c51de4"},
        Row{Action::kRegister, "register", "cda7d16c199245cda595d7a199ef8b30"},
        Row{Action::kHandover, "handover", "f87a26fdb26c45248ee528d77db7f1df"},
        Row{Action::kRefuse, "refuse", "3e8fbdf62aca4b5da5c451cf638508b9"},
        Row{Action::kUnregister, "unregister", "6f3d3df43c4840a4b87b5779f3becb65"},
        Row{Action::kGone, "gone", "5f748c9ce70c4d5194ea63e56d6749cf"},
        Row{Action::kRevoke, "revoke", "783d68fbb21b4f47bad69ee75adbe791"},
        Row{Action::kReload, "reload", "4817f46e618e414db6f728a05ceb01dd"},
        Row{Action::kReloadFailed, "reload-failed", "a1359f7f263a4446bf5e7dbff6f7af2c"},
        Row{Action::kDiagnostic, "diagnostic", "facb2a0897504d6cbb5d8fed27ebd8df"},
        Row{Action::kUnload, "unload", "16a85bc9a6984599828d68f9f0176293"},
        Row{Action::kHold, "hold", "dbccd26a025148e1b1cc79d0f32ff335"},
        Row{Action::kRetrieve, "retrieve", "31ba1fdd4bf34025b1c15def8db52df6"},
        Row{Action::kExpire, "expire", "a61c302212014f3f8609f9f9509be27b"},
        Row{Action::kWarn, "warn", "2937dec2dd764d6086bf73b8c0e0f719"},
        Row{Action::kLost, "lost", "d4b4a0047ce146e39264a7378fc60dad"},
        Row{Action::kKeep, "keep", "cac6aebbe2494949be844eb8bf5b447a"},
        Row{Action::kAnnounce, "announce", "11b500f082984582bd28aa3c0383e7aa"},
        Row{Action::kWithdraw, "withdraw", "6488220525154cfd8923fd3c0c21db4a"},
        Row{Action::kDrain, "drain", "3211fcde8b2845cab01a2eb66b77f436"},
        Row{Action::kTurnAway, "turn-away", "a6667fb6f26348ea82bb0bfe1181b1af"},
};

constexpr bool in_order_of_action() {
        for (std::size_t i = 0; i < kRows.size(); ++i) {
                if (static_cast<std::size_t>(kRows[i].action) != i) {
                        return false;
                }
        }
        return kRows.size() == kActions;
}
static_assert(in_order_of_action(), "the table must have one row for each action, in their order");

}  // namespace

std::string_view action_name(Action action) {
        return kRows.at(static_cast<std::size_t>(action)).name;
}

std::string_view message_id(Action action) {
        return kRows.at(static_cast<std::size_t>(action)).id;
}

}  // namespace sockbroker
