/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One load, as the kernel's READ_ONCE(): what another processor may change meanwhile is neither read twice nor in
 * parts. */
#pragma once

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
