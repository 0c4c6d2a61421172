# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the namespace tests and the demo share: namespaces, the broker as a child, services, clients."""
