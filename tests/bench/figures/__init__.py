# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks measured as goals, tables and plots; ../report writes them."""
