// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/capabilities.h"

#include <sys/prctl.h>

#include <algorithm>
#include <memory>

namespace sockbroker {

namespace {

struct FreeCap {
        void operator()(cap_t caps) const { cap_free(caps); }
};
using OwnedCap = std::unique_ptr<std::remove_pointer_t<cap_t>, FreeCap>;

bool permitted(cap_t caps, cap_value_t cap) {
        cap_flag_value_t value = CAP_CLEAR;
        return cap_get_flag(caps, cap, CAP_PERMITTED, &value) == 0 && value == CAP_SET;
}

}  // namespace

Result<void> keep_capabilities(std::initializer_list<cap_value_t> wanted) {
        const OwnedCap current(cap_get_proc());
        const OwnedCap next(cap_init());
        if (!current || !next) {
                return fail_errno("cannot read own capabilities");
        }
        if (permitted(current.get(), CAP_SETPCAP)) {
                for (cap_value_t cap = 0; cap < cap_max_bits(); cap++) {
                        if (std::ranges::find(wanted, cap) == wanted.end() && cap_drop_bound(cap) != 0) {
                                return fail_errno("cannot drop a capability from the bounding set");
                        }
                }
        }
        for (const cap_value_t cap : wanted) {
                if (permitted(current.get(), cap) && (cap_set_flag(next.get(), CAP_PERMITTED, 1, &cap, CAP_SET) != 0 ||
                                                      cap_set_flag(next.get(), CAP_EFFECTIVE, 1, &cap, CAP_SET) != 0)) {
                        return fail_errno("cannot choose capabilities");
                }
        }
        if (cap_reset_ambient() != 0 || cap_set_proc(next.get()) != 0) {
                return fail_errno("cannot drop capabilities");
        }
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
                return fail_errno("cannot set no_new_privs");
        }
        return {};
}

}  // namespace sockbroker
