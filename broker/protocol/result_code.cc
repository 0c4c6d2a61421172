// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The one table of RESULT= codes: their text and the errno that ERRNO= carries. docs/protocol.md tells the cause and
// the remedy of each. No two codes share an errno, so that a C program may switch on it.
#include "broker/protocol/result_code.h"

#include <array>
#include <cerrno>

#include <fmt/format.h>

namespace sockbroker {
namespace {

struct Entry {
        ResultCode code;
        std::string_view text;
        int errnum;
};

constexpr std::array kTable = {
        Entry{ResultCode::kOk, "ok", 0},
        Entry{ResultCode::kMalformed, "malformed", EBADMSG},
        Entry{ResultCode::kUnknownService, "unknown-service", ENOENT},
        Entry{ResultCode::kAmbiguous, "ambiguous", ENOTUNIQ},
        Entry{ResultCode::kNotPermitted, "not-permitted", EACCES},  // what a refused bind(2) gets
        Entry{ResultCode::kWrongSocket, "wrong-socket", EPROTOTYPE},
        Entry{ResultCode::kNotListening, "not-listening", EINVAL},  // what accept(2) says of such a socket
        Entry{ResultCode::kForeignNetns, "foreign-netns", EXDEV},
        Entry{ResultCode::kMptcp, "mptcp", EPROTONOSUPPORT},
        Entry{ResultCode::kQuota, "quota", EDQUOT},
        Entry{ResultCode::kBusy, "busy", EBUSY},
        Entry{ResultCode::kNotHeld, "not-held", ENODATA},
        Entry{ResultCode::kRateLimited, "rate-limited", EAGAIN},
        Entry{ResultCode::kNotRoot, "not-root", EPERM},
        Entry{ResultCode::kInternal, "internal", EIO},
};

constexpr bool in_order() {
        for (std::size_t i = 0; i < kTable.size(); i++) {
                if (static_cast<std::size_t>(kTable[i].code) != i) {
                        return false;
                }
        }
        return kTable.size() == static_cast<std::size_t>(ResultCode::kInternal) + 1;
}
static_assert(in_order(), "the table is indexed by the code");

// Control characters become blanks.
std::string one_line(std::string_view text) {
        std::string clean(text);
        for (char& c : clean) {
                if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
                        c = ' ';
                }
        }
        return clean;
}

}  // namespace

std::string_view to_string(ResultCode code) {
        return kTable[static_cast<std::size_t>(code)].text;
}

int to_errno(ResultCode code) {
        return kTable[static_cast<std::size_t>(code)].errnum;
}

std::string format_result(ResultCode code, std::string_view message, const std::vector<std::string>& warnings) {
        auto text =
                fmt::format("RESULT={}\nERRNO={}\nMESSAGE={}\n", to_string(code), to_errno(code), one_line(message));
        for (const auto& warning : warnings) {
                text += fmt::format("WARNING={}\n", one_line(warning));
        }
        return text;
}

}  // namespace sockbroker
