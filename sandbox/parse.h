// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The text of profiles to a Profile: a file, what it includes, and drop-ins after it. Pure; files are found by others.
// A profile is taken whole or not at all, and every error is reported with file and line.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/result.h"
#include "sandbox/profile.h"

namespace sockbroker::sandbox {

struct ProfileFile {
        std::string path;  // for messages
        std::string text;
};

struct Diagnostic {
        std::string file;
        unsigned line = 0;  // 0: the file as a whole
        std::string message;

        [[nodiscard]] std::string to_string() const;  // "FILE:LINE: MESSAGE"
};

struct ParsedProfile {
        std::optional<Profile> profile;  // none if there is any error
        std::vector<Diagnostic> errors;
};

// The text of the profile that an include line names.
using FindProfile = std::function<Result<ProfileFile>(const std::string& name)>;

// `files`: the profile itself, then its drop-ins. Within one file every call is either allowed, by one line or by
// several with conditions, or denied by one line. A later file adds to what earlier ones allow; where it denies, it
// takes back what they allow, and where it allows what they deny, its lines are all that counts.
[[nodiscard]] ParsedProfile parse_profile(const std::string& name, const std::vector<ProfileFile>& files,
                                          const FindProfile& find);

}  // namespace sockbroker::sandbox
