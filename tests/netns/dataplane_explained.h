// SPDX-License-Identifier: LGPL-2.1-or-later
//
// explain() asked and answered in the words of the oracle.
#pragma once

#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {

inline LookUp look_up(const oracle::Packet& packet, std::uint16_t from_port = 40000) {
        return {.protocol = packet.protocol,
                .local = {packet.to, packet.port},
                .remote = {packet.from, from_port},
                .ifindex = packet.ifindex};
}

inline oracle::Verdict verdict_of(const Explained& explained) {
        return explained.cookie != 0 ? oracle::Verdict::kSocket
               : explained.refused   ? oracle::Verdict::kRefused
                                     : oracle::Verdict::kPass;
}

class ExplainTest : public DataplaneTest {
protected:
        Explained explain(const LookUp& look_up) {
                const auto explained = dataplane_->explain(look_up);
                EXPECT_TRUE(explained) << explained.error().text();
                return explained.value_or(Explained{});
        }
};

}  // namespace sockbroker
