// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/interface_index.h"

#include <net/if.h>

#include <map>
#include <memory>

namespace sockbroker {

std::function<std::uint32_t(const std::string&)> interfaces_now() {
        const std::unique_ptr<struct if_nameindex, void (*)(struct if_nameindex*)> all(::if_nameindex(),
                                                                                       if_freenameindex);
        std::map<std::string, std::uint32_t> known;
        for (const auto* each = all.get(); each != nullptr && each->if_index != 0; each++) {
                known.emplace(each->if_name, each->if_index);
        }
        return [known = std::move(known)](const std::string& name) {
                const auto found = known.find(name);
                return found == known.end() ? 0U : found->second;
        };
}

}  // namespace sockbroker
