// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/execute.h"

#include <unistd.h>

#include <cerrno>

namespace sockbroker {

int replace_process(const std::vector<std::string>& words) {
        std::vector<char*> arguments;
        arguments.reserve(words.size() + 1);
        for (const std::string& word : words) {
                arguments.push_back(const_cast<char*>(word.c_str()));  // execvp(3) does not write to them
        }
        arguments.push_back(nullptr);
        ::execvp(arguments[0], arguments.data());
        return errno;
}

}  // namespace sockbroker
