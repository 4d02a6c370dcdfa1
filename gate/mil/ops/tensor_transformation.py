# SPDX-License-Identifier: Apache-2.0
"""Moving values without computing: shape, order, windows."""
