# SPDX-License-Identifier: Apache-2.0
"""coremltools' own tests, answered by `gate.mil`."""
