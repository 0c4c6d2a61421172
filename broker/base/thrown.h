// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What to tell people of what was thrown: of want of memory the library's own text is no sentence.
#pragma once

#include <exception>
#include <new>

namespace sockbroker {

[[nodiscard]] inline const char* text_of(const std::exception& error) noexcept {
        return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ? "out of memory" : error.what();
}

}  // namespace sockbroker
