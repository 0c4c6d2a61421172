// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Standard input, output and error as the one who starts a program leaves them: maybe closed, maybe full.
#pragma once

#include <string_view>

namespace sockbroker {

// Opens /dev/null where one of the three is closed, so that no file or socket of the program gets that number and
// receives what is printed. Writing still fails there, and is reported as any other failure. To be called first.
void open_standard_streams();

// What cannot be written is lost: unlike fmt::print() this never throws, for a full disk or a journal that has ended is
// no reason for a program to end.
void print_to_stderr(std::string_view text) noexcept;

}  // namespace sockbroker
