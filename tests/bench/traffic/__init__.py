# SPDX-License-Identifier: LGPL-2.1-or-later
"""Traffic and control-plane benchmarks; ../run starts them."""
