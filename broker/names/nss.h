// SPDX-License-Identifier: LGPL-2.1-or-later
//
// NSS itself. It may take seconds, or for ever: never called in the event loop.
#pragma once

#include "broker/names/question.h"

namespace sockbroker {

[[nodiscard]] NssAnswer ask_nss(const Question& question);

}  // namespace sockbroker
