// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/run/program.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace sockbroker::launcher {

std::string find_program(const std::string& word) {
        if (word.find('/') != std::string::npos) {
                return word;
        }
        const char* const path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): there is one thread
        std::string_view rest = path != nullptr ? path : "/bin:/usr/bin";
        for (;;) {
                const auto colon = rest.find(':');
                const auto folder = rest.substr(0, colon);
                std::string file = folder.empty() ? word : std::string(folder) + '/' + word;
                struct stat status {};
                if (::faccessat(AT_FDCWD, file.c_str(), X_OK, AT_EACCESS) == 0 && ::stat(file.c_str(), &status) == 0 &&
                    S_ISREG(status.st_mode)) {
                        return file;
                }
                if (colon == std::string_view::npos) {
                        return word;
                }
                rest.remove_prefix(colon + 1);
        }
}

Looking looking_into(const std::string& path) {
        struct stat status {};
        if (::stat(path.c_str(), &status) != 0 || ::faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) == 0) {
                return Looking::kAsEver;
        }
        return status.st_uid == ::geteuid() && status.st_gid == ::getegid() ? Looking::kInNamespace : Looking::kNobody;
}

bool has_capabilities(const std::string& path) {
        return ::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

}  // namespace sockbroker::launcher
