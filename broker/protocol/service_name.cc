// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/protocol/service_name.h"

namespace sockbroker {

bool valid_service_name(std::string_view name) {
        if (name.empty() || name.size() > kMaxServiceName) {
                return false;
        }
        for (const char c : name) {
                const bool good = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                                  c == '.' || c == '_' || c == '-';
                if (!good) {
                        return false;
                }
        }
        return true;
}

}  // namespace sockbroker
