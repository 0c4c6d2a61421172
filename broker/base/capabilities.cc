// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/capabilities.h"

#include <linux/securebits.h>
#include <sys/prctl.h>

#include <algorithm>
#include <memory>

namespace sockbroker {

namespace {

struct FreeCap {
        void operator()(cap_t caps) const { cap_free(caps); }
};
using OwnedCap = std::unique_ptr<std::remove_pointer_t<cap_t>, FreeCap>;

// Root's exec gives nothing, a change of uid gives nothing, and neither these bits nor the ambient set can be changed
// any more.
constexpr unsigned kSecureBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                 SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

bool permitted(cap_t caps, cap_value_t cap) {
        cap_flag_value_t value = CAP_CLEAR;
        return cap_get_flag(caps, cap, CAP_PERMITTED, &value) == 0 && value == CAP_SET;
}

Result<void> close_the_ways_back() {
        for (cap_value_t cap = 0; cap < cap_max_bits(); cap++) {
                if (cap_drop_bound(cap) != 0) {
                        return fail_errno("cannot drop a capability from the bounding set");
                }
        }
        if (prctl(PR_SET_SECUREBITS, kSecureBits, 0, 0, 0) != 0) {
                return fail_errno("cannot lock the securebits");
        }
        return {};
}

}  // namespace

Result<void> keep_capabilities(std::initializer_list<cap_value_t> wanted) {
        const OwnedCap current(cap_get_proc());
        const OwnedCap next(cap_init());
        if (!current || !next) {
                return fail_errno("cannot read own capabilities");
        }
        if (permitted(current.get(), CAP_SETPCAP)) {
                if (auto closed = close_the_ways_back(); !closed) {
                        return closed;
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
        const OwnedCap kept(cap_get_proc());
        if (!kept || cap_compare(kept.get(), next.get()) != 0) {
                return fail(EPERM, "the kernel did not take the capabilities away that were to be dropped");
        }
        return {};
}

bool has_capability(std::initializer_list<cap_value_t> any) {
        const OwnedCap current(cap_get_proc());
        return current && std::ranges::any_of(any, [&](cap_value_t cap) { return permitted(current.get(), cap); });
}

}  // namespace sockbroker
