# SPDX-License-Identifier: Apache-2.0
"""Making, ordering, joining and splitting tensors."""
