// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether close(2) of a connection is harmless: it is, where nothing lies in its queue.
#pragma once

#include <cstdint>

namespace sockbroker::hands {

enum class QueueState : std::uint8_t {
        kEmpty,
        kEnded,   // and nothing can come any more
        kRecord,  // at least one, with descriptors or without
};

// Of a connection with SO_PASSCRED, and without SO_PASSPIDFD and SO_PASSSEC. Takes nothing from the queue and lets no
// descriptor in.
[[nodiscard]] QueueState look_at_queue(int connection);

// Takes the records off its queue that have no descriptor with them, until one has: nothing that is closed by that can
// keep anybody waiting. Only for a connection that was shut down and that nobody else receives from. True: nothing is
// left.
[[nodiscard]] bool drop_plain_records(int connection);

}  // namespace sockbroker::hands
