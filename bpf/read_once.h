/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One load or store, as the kernel's own: what another processor may change meanwhile is neither read twice nor in
 * parts, and is not written in parts. */
#pragma once

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))
