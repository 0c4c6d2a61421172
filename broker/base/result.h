// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Result<T>: the one way a function of the broker reports failure. An Error carries the errno (0 where
// no system call failed), and a message that says what was attempted, on what, and what to do about it:
// lower case, no full stop.
#pragma once

#include <cerrno>
#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace sockbroker {

struct Error {
        int errnum = 0;
        std::string message;

        // The message, followed by the text of errnum where there is one.
        [[nodiscard]] std::string text() const {
                return errnum == 0 ? message : message + ": " + std::strerror(errnum);
        }
};

template <class T>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(int errnum, std::string message) {
        return std::unexpected(Error{errnum < 0 ? -errnum : errnum, std::move(message)});
}

[[nodiscard]] inline std::unexpected<Error> fail(std::string message) {
        return std::unexpected(Error{0, std::move(message)});
}

// The failure of the system call just made.
[[nodiscard]] inline std::unexpected<Error> fail_errno(std::string message) {
        return std::unexpected(Error{errno, std::move(message)});
}

}  // namespace sockbroker
