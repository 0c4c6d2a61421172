// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The process that asks NSS in the broker's place (start_helper()). It reads questions and answers each when a thread
// of it has the answer; libraries of others run in here, and what they can do to the broker is to answer wrongly or not
// at all.
#pragma once

#include <cstddef>
#include <string>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

// Questions that are asked at the same time. Whoever asks sends no more before an answer came.
inline constexpr std::size_t kNamesThreads = 8;

// Two processes: one that answers, and one that does nothing but put another in its place when it ends or hangs.
// Returns when the broker is gone.
void answer_questions(OwnedFd socket);

// Its filter of system calls as it is built in, for a person to read.
[[nodiscard]] Result<std::string> describe_names_filter();

}  // namespace sockbroker
